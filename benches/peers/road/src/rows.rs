//! The rows, and what is asked of each.

use crate::Client::{
    self, Amplify, Bare, BareDefault, BareTls, Crt, Ntex, Ours, OursJson, OursTls, OursTwo,
    Rumqttc, RumqttcTwo,
};
use crate::parent::{Broker, Frames, Load};
use crate::work::Verb;

/// A bound on our figure, of which all of a row are to hold.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// A factor on a peer's figure.
    Times(f64, Client),
    /// A part of a peer's figure.
    Part(f64, Client),
    /// So much more than a peer's.
    Plus(f64, Client),
    /// What the first has, and a factor on what the third has more than the fourth.
    Extra(Client, f64, Client, Client),
    AtMost(f64),
}
use Bound::{AtMost, Extra, Part, Plus, Times};

/// What is read off a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Microseconds of CPU for each message.
    Cpu,
    /// Microseconds until half of the round trips were over; the 99th and 99.9th percentile beside it.
    Latency,
    /// How many a second, by the clock on the wall.
    Rate,
    /// KiB resident for each connection.
    Resident,
    /// MiB resident at the most.
    Peak,
    /// For each message.
    Allocations,
    Instructions,
    SystemCalls,
}

pub struct Row {
    /// As numbered in the list of goals, or a word where that list has none.
    pub number: &'static str,
    pub what: &'static str,
    pub figure: Figure,
    pub load: Load,
    /// The clients of the section that have no part in it.
    pub without: &'static [Client],
    pub must: &'static [Bound],
    pub goal: &'static [Bound],
    pub note: &'static str,
}

pub struct Section {
    pub title: &'static str,
    /// The first is the one that the bounds are on.
    pub clients: &'static [Client],
    pub rows: &'static [Row],
}

const SMALL: usize = 64;
const LARGE: usize = 16 * 1024;

/// What is asked of aws-c-mqtt is its own time: where Python has a part in each message, it has most of it.
const NO_CRT: &[Client] = &[Crt];
/// Nor the default buffer, which makes no difference here, or is counted byte by byte as it is zeroed.
const NO_CRT_NOR_DEFAULT: &[Client] = &[Crt, BareDefault];
/// Nor N, which has its own trouble with QoS 2.
const NO_CRT_NOR_NTEX: &[Client] = &[Crt, Ntex];

const fn load(verb: Verb, count: usize, window: usize, payload: usize) -> Load {
    Load {
        verb,
        count,
        window,
        payload,
        frames: Frames::OnePacket,
        topics: 1,
        filters: 1,
        subscribers: 1,
        broker: Broker::Awake,
    }
}

const fn sleeping(load: Load) -> Load {
    Load {
        broker: Broker::Sleeping,
        ..load
    }
}

const fn cut(frame: usize) -> Load {
    Load {
        frames: Frames::Cut(frame),
        ..RECEIVE
    }
}

/// Of a thousand topics in turn, so that no two messages in a row share one.
const fn filters(filters: usize) -> Load {
    Load {
        topics: 1_000,
        filters,
        ..load(Verb::Receive, 200_000, 0, SMALL)
    }
}

const fn subscribers(subscribers: usize) -> Load {
    Load {
        subscribers,
        ..load(Verb::Receive, 20_000, 0, SMALL)
    }
}

const fn row(
    number: &'static str,
    what: &'static str,
    figure: Figure,
    load: Load,
    must: &'static [Bound],
    goal: &'static [Bound],
) -> Row {
    Row {
        number,
        what,
        figure,
        load,
        without: &[],
        must,
        goal,
        note: "",
    }
}

impl Row {
    const fn without(mut self, clients: &'static [Client]) -> Self {
        self.without = clients;
        self
    }

    const fn note(mut self, note: &'static str) -> Self {
        self.note = note;
        self
    }
}

const RECEIVE: Load = load(Verb::Receive, 400_000, 0, SMALL);
const RECEIVE_LARGE: Load = load(Verb::Receive, 30_000, 0, LARGE);
const PUBLISH: Load = load(Verb::Publish, 200_000, 1_000, SMALL);
const PUBLISH_ALONE: Load = load(Verb::Publish, 50_000, 1, SMALL);
const PUBLISH_ACK_NARROW: Load = load(Verb::PublishAck, 100_000, 20, SMALL);
const PUBLISH_ACK: Load = load(Verb::PublishAck, 100_000, 100, SMALL);
const PING_PONG: Load = load(Verb::PingPong, 5_000, 0, SMALL);
const PING_PONG_IN_TASK: Load = load(Verb::PingPongInTask, 5_000, 0, SMALL);
const CONNECT: Load = load(Verb::Connect, 1_000, 0, SMALL);
const RECEIVE_ACK_NARROW: Load = load(Verb::ReceiveAck, 50_000, 20, SMALL);
const JSON_PING_PONG: Load = load(Verb::PingPong, 3_000, 0, SMALL);
const JSON_CONNECT: Load = load(Verb::Connect, 300, 0, SMALL);

pub const SECTIONS: &[Section] = &[
    Section {
        title: "One thread, WebSocket without TLS",
        clients: &[Ours, Bare, BareDefault, Rumqttc, Ntex, Crt],
        rows: ROAD,
    },
    Section {
        title: "A runtime with two worker threads",
        clients: &[OursTwo, Ours, RumqttcTwo, Rumqttc],
        rows: TWO_THREADS,
    },
    Section {
        title: "TLS",
        clients: &[OursTls, Ours, BareTls, Bare],
        rows: TLS,
    },
    Section {
        title: "JSON, beside Amplify",
        clients: &[OursJson, Amplify],
        rows: AMPLIFY,
    },
    Section {
        title: "The same against a broker that sleeps",
        clients: &[Ours, Bare, Rumqttc, Ntex],
        rows: SLEEPING,
    },
    Section {
        title: "JSON, beside Amplify, against a broker that sleeps",
        clients: &[OursJson, Amplify],
        rows: AMPLIFY_SLEEPING,
    },
    Section {
        title: "Growth",
        clients: &[Ours],
        rows: GROWTH,
    },
];

#[rustfmt::skip]
const ROAD: &[Row] = &[
    row("1", "receive QoS 0, 64 B, one packet a frame", Figure::Cpu, RECEIVE,
        &[Times(0.6, Rumqttc), Times(1.8, Bare)], &[Times(0.33, Rumqttc), Times(0.6, Crt)])
        .note("C takes each message off the wire and finds whom it is for, but calls nobody: its subscriber is empty, and \
               the last message has a topic of its own. It has no part in the rows where Python would have to touch each message: \
               that costs it tens of microseconds."),
    row("2", "the same, 16 KiB frames of many packets", Figure::Cpu, cut(16 * 1024),
        &[Times(0.6, Rumqttc)], &[Times(0.35, Rumqttc), Times(0.75, Crt)]),
    row("3", "the same, cut into frames of 40 B", Figure::Cpu, cut(40),
        &[Times(0.9, Rumqttc)], &[Times(0.6, Rumqttc)]),
    row("4", "publish QoS 0, 64 B, pipelined", Figure::Cpu, PUBLISH,
        &[Times(0.3, Rumqttc), Times(2.0, Ntex)], &[Times(0.1, Rumqttc), Times(0.7, Ntex)])
        .without(NO_CRT)
        .note("A receipt is awaited for each of ours, a thousand at a time. N gives none at QoS 0."),
    row("5", "publish QoS 0, 64 B, one at a time, flushed", Figure::Cpu, PUBLISH_ALONE,
        &[Times(1.5, Bare)], &[Times(1.2, Bare)]).without(NO_CRT),
    row("6", "publish QoS 1, window 20", Figure::Cpu, PUBLISH_ACK_NARROW,
        &[Times(1.0, Ntex), Times(0.4, Rumqttc)], &[Times(0.6, Ntex), Times(0.25, Rumqttc)]).without(NO_CRT),
    row("7", "publish QoS 1, window 100", Figure::Cpu, PUBLISH_ACK,
        &[Times(0.8, Ntex), Times(0.3, Rumqttc)], &[Times(0.5, Ntex), Times(0.15, Rumqttc)]).without(NO_CRT),
    row("7", "publish QoS 1, window 65,519", Figure::Cpu, load(Verb::PublishAck, 200_000, 65_519, SMALL),
        &[Times(0.8, Ntex), Times(0.3, Rumqttc)], &[Times(0.5, Ntex), Times(0.15, Rumqttc)]).without(NO_CRT)
        .note("The widest window is 65,519, for all: ours keeps the other sixteen identifiers for SUBSCRIBE and UNSUBSCRIBE."),
    row("8", "publish QoS 2, window 100", Figure::Cpu, load(Verb::PublishExact, 100_000, 100, SMALL),
        &[Times(0.4, Rumqttc)], &[Times(0.2, Rumqttc)]).without(NO_CRT_NOR_NTEX)
        .note("Ours has its limit for QoS 2 before MQTT 5, 19 by default, set to the window. N hangs with a hundred in flight at QoS 2."),
    row("9", "receive QoS 1 with acknowledgements, window 20", Figure::Cpu, RECEIVE_ACK_NARROW,
        &[Times(0.8, Rumqttc)], &[Times(0.5, Rumqttc)]),
    row("9", "receive QoS 1 with acknowledgements, window 1,000", Figure::Cpu, load(Verb::ReceiveAck, 200_000, 1_000, SMALL),
        &[Times(0.8, Rumqttc)], &[Times(0.3, Rumqttc)]),
    row("10", "receive QoS 0, 16 KiB", Figure::Cpu, RECEIVE_LARGE,
        &[Times(0.95, Rumqttc)], &[Times(0.8, Rumqttc)]),
    row("11", "publish QoS 0, 16 KiB", Figure::Cpu, load(Verb::Publish, 20_000, 100, LARGE),
        &[Times(0.9, Rumqttc)], &[Times(0.75, Rumqttc)]).without(NO_CRT),
    row("12", "ping-pong, CPU a round trip", Figure::Cpu, PING_PONG,
        &[Times(0.75, Rumqttc)], &[Times(0.6, Rumqttc), Times(1.2, Bare)]).without(NO_CRT),
    row("12", "ping-pong, p50 (p99, p99.9)", Figure::Latency, PING_PONG, &[], &[]).without(NO_CRT)
        .note("Its bound is on a floor of frame code of its own, which is not measured here; T is beside it."),
    row("12", "ping-pong from a task, CPU a round trip", Figure::Cpu, PING_PONG_IN_TASK, &[], &[]).without(NO_CRT_NOR_NTEX)
        .note("In the other rows the application is the root future of its runtime, which is polled a turn of the runtime after \
               the tasks that wake it."),
    row("12", "the same, p50 (p99, p99.9)", Figure::Latency, PING_PONG_IN_TASK, &[], &[]).without(NO_CRT_NOR_NTEX),
    row("13", "connect, subscribe, disconnect", Figure::Cpu, CONNECT,
        &[Times(1.3, Rumqttc)], &[Times(1.0, Rumqttc)]).without(NO_CRT),
    row("13", "the same, how many a second", Figure::Rate, CONNECT, &[], &[]).without(NO_CRT)
        .note("Ours sends SUBSCRIBE with the CONNECT, and waits until the peer has closed too; T and R wait for the CONNACK, and for no close."),
    row("14", "resident, each of 1,000 idle connections", Figure::Resident, load(Verb::Idle, 1_000, 0, SMALL),
        &[Times(0.25, Rumqttc), AtMost(40.0)], &[Times(0.1, Rumqttc), AtMost(16.0), Times(2.0, Ntex)]).without(NO_CRT),
    row("14", "resident, each of 5,000 idle connections", Figure::Resident, load(Verb::Idle, 5_000, 0, SMALL),
        &[Times(0.25, Rumqttc), AtMost(40.0)], &[Times(0.1, Rumqttc), AtMost(16.0), Times(2.0, Ntex)]).without(NO_CRT),
    row("15", "peak resident over a flood of 1,000,000", Figure::Peak, load(Verb::Receive, 1_000_000, 0, SMALL),
        &[Plus(8.0, Bare)], &[Plus(2.0, Bare)]).without(NO_CRT)
        .note("Of the whole process, its program and allocator with it."),
    row("16", "allocations, receive QoS 0", Figure::Allocations, RECEIVE,
        &[AtMost(2.0)], &[AtMost(1.0)]).without(NO_CRT),
    row("16", "allocations, publish QoS 0, pipelined", Figure::Allocations, PUBLISH,
        &[AtMost(2.0)], &[AtMost(1.0)]).without(NO_CRT),
    row("16", "allocations, publish QoS 1, window 100", Figure::Allocations, PUBLISH_ACK,
        &[AtMost(3.0)], &[AtMost(2.0)]).without(NO_CRT),
    row("16", "allocations, connect, subscribe, disconnect", Figure::Allocations, CONNECT, &[], &[]).without(NO_CRT),
    row("17", "system calls, receive QoS 0", Figure::SystemCalls, load(Verb::Receive, 50_000, 0, SMALL),
        &[AtMost(0.02)], &[AtMost(0.01)]).without(NO_CRT_NOR_DEFAULT)
        .note("What strace counts in all threads of a run of twice as many messages, less what it counts in a run of them. It slows \
               every call down, so that a client finds more to do after each than it would by itself."),
    row("17", "system calls, publish QoS 0, pipelined", Figure::SystemCalls, load(Verb::Publish, 50_000, 1_000, SMALL),
        &[AtMost(0.1)], &[AtMost(0.03)]).without(NO_CRT_NOR_DEFAULT),
    row("17", "system calls, publish QoS 1, window 100", Figure::SystemCalls, load(Verb::PublishAck, 20_000, 100, SMALL),
        &[AtMost(0.3)], &[AtMost(0.1)]).without(NO_CRT_NOR_DEFAULT),
    row("17", "system calls, publish QoS 0, one at a time", Figure::SystemCalls, load(Verb::Publish, 10_000, 1, SMALL),
        &[], &[]).without(NO_CRT_NOR_DEFAULT),
    row("17", "system calls, receive QoS 1 with acknowledgements, window 20", Figure::SystemCalls,
        load(Verb::ReceiveAck, 20_000, 20, SMALL), &[], &[]).without(NO_CRT_NOR_DEFAULT),
    row("17", "system calls, ping-pong", Figure::SystemCalls, PING_PONG, &[], &[]).without(NO_CRT_NOR_DEFAULT),
    row("17", "system calls, connect, subscribe, disconnect", Figure::SystemCalls, load(Verb::Connect, 200, 0, SMALL),
        &[], &[]).without(NO_CRT_NOR_DEFAULT),
    row("18", "instructions, receive QoS 0", Figure::Instructions, load(Verb::Receive, 10_000, 0, SMALL),
        &[AtMost(1_500.0)], &[AtMost(900.0)]).without(NO_CRT_NOR_DEFAULT)
        .note("The gate: it does not depend on who else uses the machine. What valgrind counts in a run of twice as many messages, \
               less what it counts in a run of them; it counts the zeroing and copying of memory byte by byte."),
    row("18", "instructions, publish QoS 0, pipelined", Figure::Instructions, load(Verb::Publish, 5_000, 1_000, SMALL),
        &[AtMost(2_500.0)], &[AtMost(1_200.0)]).without(NO_CRT_NOR_DEFAULT),
    row("18", "instructions, publish QoS 1, window 100", Figure::Instructions, load(Verb::PublishAck, 5_000, 100, SMALL),
        &[AtMost(6_000.0)], &[AtMost(3_000.0)]).without(NO_CRT_NOR_DEFAULT),
    row("18", "instructions, publish QoS 0, one at a time", Figure::Instructions, load(Verb::Publish, 5_000, 1, SMALL),
        &[], &[]).without(NO_CRT_NOR_DEFAULT),
    row("18", "instructions, receive QoS 1 with acknowledgements, window 20", Figure::Instructions,
        load(Verb::ReceiveAck, 10_000, 20, SMALL), &[], &[]).without(NO_CRT_NOR_DEFAULT),
    row("18", "instructions, receive QoS 1 with acknowledgements, window 1,000", Figure::Instructions,
        load(Verb::ReceiveAck, 10_000, 1_000, SMALL), &[], &[]).without(NO_CRT_NOR_DEFAULT),
    row("18", "instructions, ping-pong", Figure::Instructions, load(Verb::PingPong, 2_000, 0, SMALL),
        &[], &[]).without(NO_CRT_NOR_DEFAULT),
    row("18", "instructions, connect, subscribe, disconnect", Figure::Instructions, load(Verb::Connect, 200, 0, SMALL),
        &[], &[]).without(NO_CRT_NOR_DEFAULT),
];

#[rustfmt::skip]
const TWO_THREADS: &[Row] = &[
    row("20", "receive QoS 0, 64 B", Figure::Cpu, RECEIVE,
        &[Times(1.5, Ours)], &[Times(1.15, Ours)]),
    row("20", "publish QoS 0, 64 B, pipelined", Figure::Cpu, PUBLISH,
        &[Times(1.5, Ours)], &[Times(1.15, Ours)]),
    row("20", "publish QoS 1, window 100", Figure::Cpu, PUBLISH_ACK, &[], &[]),
];

#[rustfmt::skip]
const TLS: &[Row] = &[
    row("21", "receive QoS 0, 64 B", Figure::Cpu, RECEIVE,
        &[Extra(Ours, 1.2, BareTls, Bare)], &[Extra(Ours, 1.05, BareTls, Bare)])
        .note("TLS 1.3 by rustls on ring in both; T/wss is the floor, bare tokio-tungstenite over it."),
    row("21", "receive QoS 0, 16 KiB", Figure::Cpu, RECEIVE_LARGE,
        &[Extra(Ours, 1.2, BareTls, Bare)], &[Extra(Ours, 1.05, BareTls, Bare)]),
    row("21", "publish QoS 0, 64 B, pipelined", Figure::Cpu, PUBLISH, &[], &[]),
    row("21", "connect, subscribe, disconnect", Figure::Cpu, load(Verb::Connect, 300, 0, SMALL), &[], &[])
        .note("T/wss resumes its TLS session, having one configuration for all; ours has a new provider, and so a full handshake, each time."),
];

#[rustfmt::skip]
const AMPLIFY: &[Row] = &[
    row("19", "receive, 64 B", Figure::Cpu, load(Verb::Receive, 50_000, 0, SMALL),
        &[Part(15.0, Amplify)], &[Part(40.0, Amplify)])
        .note("Amplify's own client for MQTT over WebSocket, on Node with the package ws as its WebSocket. Both make JSON of what they \
               publish, and an object of what they receive."),
    row("19", "publish, 64 B", Figure::Cpu, load(Verb::Publish, 20_000, 1_000, SMALL),
        &[Part(20.0, Amplify)], &[Part(50.0, Amplify)]),
    row("19", "ping-pong, CPU a round trip", Figure::Cpu, JSON_PING_PONG,
        &[Part(5.0, Amplify)], &[Part(8.0, Amplify)]),
    row("19", "connect, subscribe, disconnect", Figure::Cpu, JSON_CONNECT,
        &[Part(10.0, Amplify)], &[Part(15.0, Amplify)]),
    row("19", "receive, 16 KiB", Figure::Cpu, load(Verb::Receive, 5_000, 0, LARGE),
        &[Part(10.0, Amplify)], &[Part(20.0, Amplify)]),
];

#[rustfmt::skip]
const SLEEPING: &[Row] = &[
    row("sleeping", "publish QoS 0, 64 B, one at a time, flushed", Figure::Cpu, sleeping(PUBLISH_ALONE), &[], &[])
        .note("The client pays for waking the broker's processor where it sleeps, and not where the system runs both on one: \
               these figures move by a factor of two from run to run, for all clients alike."),
    row("sleeping", "publish QoS 1, window 20", Figure::Cpu, sleeping(PUBLISH_ACK_NARROW), &[], &[]),
    row("sleeping", "publish QoS 1, window 100", Figure::Cpu, sleeping(PUBLISH_ACK), &[], &[]),
    row("sleeping", "receive QoS 1 with acknowledgements, window 20", Figure::Cpu, sleeping(RECEIVE_ACK_NARROW), &[], &[]),
    row("sleeping", "ping-pong, CPU a round trip", Figure::Cpu, sleeping(PING_PONG), &[], &[]),
    row("sleeping", "ping-pong, p50 (p99, p99.9)", Figure::Latency, sleeping(PING_PONG), &[], &[]),
    row("sleeping", "connect, subscribe, disconnect", Figure::Cpu, sleeping(CONNECT), &[], &[]),
];

#[rustfmt::skip]
const AMPLIFY_SLEEPING: &[Row] = &[
    row("sleeping", "ping-pong, CPU a round trip", Figure::Cpu, sleeping(JSON_PING_PONG), &[], &[]),
    row("sleeping", "connect, subscribe, disconnect", Figure::Cpu, sleeping(JSON_CONNECT), &[], &[]),
];

#[rustfmt::skip]
const GROWTH: &[Row] = &[
    row("filters", "receive QoS 0, 64 B, 1 subscription", Figure::Cpu, filters(1), &[], &[])
        .note("A thousand topics take turns. One subscription takes every message, to a filter with a wildcard; the others are each to \
               a filter of their own that matches none. Beyond 4,096 of them the session's limit is raised."),
    row("filters", "the same, 100 subscriptions", Figure::Cpu, filters(100), &[], &[]),
    row("filters", "the same, 10,000 subscriptions", Figure::Cpu, filters(10_000), &[], &[]),
    row("subscribers", "receive QoS 0, 64 B, 1 subscriber", Figure::Cpu, subscribers(1), &[], &[])
        .note("For each message received, whoever many it goes to."),
    row("subscribers", "the same, each to 10 subscribers", Figure::Cpu, subscribers(10), &[], &[]),
    row("subscribers", "the same, each to 100 subscribers", Figure::Cpu, subscribers(100), &[], &[]),
];
