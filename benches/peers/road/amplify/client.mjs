// Amplify's client for MQTT over WebSocket, told and asked as the others are: see ../src/work.rs and
// ../src/child.rs. It makes JSON of what it publishes and parses what it receives, and knows QoS 0 only.

import { readFileSync } from "node:fs";
import { WebSocket } from "ws";

/** The sockets that it opens; it tells nobody itself when a subscription stands, or all is sent. */
const sockets = [];
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols);
    this.subscribed = new Promise((resolve) => {
      this.on("message", (packet) => (new Uint8Array(packet)[0] === 0x90 ? resolve() : undefined));
    });
    this.closed = new Promise((resolve) => this.on("close", resolve));
    sockets.push(this);
  }
};

const { PubSub } = await import("@aws-amplify/pubsub/mqtt");

const TOPIC = "devices/17/temperature";
const FILTER = "devices/+/temperature";
/** How many messages are published before what is received is looked after. */
const BURST = 1000;

const [verb, endpoint, countText, , payloadText] = process.argv.slice(2);
const count = Number(countText);
const message = { value: "x".repeat(Number(payloadText) - '{"value":""}'.length) };

// What does not end holds nobody up.
setTimeout(() => {
  console.error("hung");
  process.exit(3);
}, 60_000).unref();

const memory = (field) =>
  Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync("/proc/self/status", "utf8"))[1]);
const before = memory("VmRSS");
let cpu, wall;
const roundTrips = [];

function start() {
  process.stdout.write("ready\n");
  cpu = process.cpuUsage();
  wall = process.hrtime.bigint();
}

function report() {
  const { user, system } = process.cpuUsage(cpu);
  const elapsed = process.hrtime.bigint() - wall;
  roundTrips.sort((a, b) => a - b);
  const quantile = (share) => roundTrips[Math.floor(roundTrips.length * share)] ?? 0;
  const fields = [(user + system) * 1000, elapsed, 0, before, memory("VmRSS"), memory("VmHWM")];
  fields.push(quantile(0.5), quantile(0.99), quantile(0.999));
  process.stdout.write(`report ${fields.join(" ")}\n`, () => process.exit(0));
}

/** A client that has subscribed. */
async function subscribed(next) {
  const options = { endpoint, aws_appsync_dangerously_connect_to_http_endpoint_for_testing: true };
  const pubsub = new PubSub(options);
  const opened = sockets.length;
  const subscription = pubsub.subscribe({ topics: FILTER }).subscribe({ next });
  while (sockets.length === opened) {
    await new Promise(setImmediate);
  }
  const socket = sockets[opened];
  await socket.subscribed;
  return { pubsub, subscription, socket };
}

switch (verb) {
  case "receive": {
    let left = count;
    await subscribed(() => {
      left -= 1;
      if (left === 0) {
        report();
      }
    });
    start();
    break;
  }
  case "publish": {
    const { pubsub, socket } = await subscribed(() => {});
    start();
    for (let at = 0; at < count; at += BURST) {
      const burst = [];
      for (let one = at; one < Math.min(at + BURST, count); one += 1) {
        burst.push(pubsub.publish({ topics: TOPIC, message }));
      }
      await Promise.all(burst);
      while (socket.bufferedAmount > 0) {
        await new Promise(setImmediate);
      }
    }
    report();
    break;
  }
  case "ping-pong": {
    let arrived;
    const { pubsub } = await subscribed(() => arrived());
    start();
    for (let at = 0; at < count; at += 1) {
      const since = process.hrtime.bigint();
      const answer = new Promise((resolve) => (arrived = resolve));
      await pubsub.publish({ topics: TOPIC, message });
      await answer;
      roundTrips.push(Number(process.hrtime.bigint() - since));
    }
    report();
    break;
  }
  case "connect": {
    start();
    for (let at = 0; at < count; at += 1) {
      const { subscription, socket } = await subscribed(() => {});
      subscription.unsubscribe();
      await socket.closed;
    }
    report();
    break;
  }
  default:
    console.error(`not ${verb}`);
    process.exit(2);
}
