"""aws-c-mqtt through AWS's Python package, told and asked as the others are: see ../src/work.rs and ../src/child.rs.

Where it can, Python stays out of the way. A subscription without a callback is still looked up for each
message, in C; a message on another topic, the last one, has a callback and tells that all have arrived.
So it only receives: each publish would be a call and a callback in Python, which cost more than all else.
"""

import os
import sys
import threading
import time
import uuid

from awscrt import mqtt

FILTER = "devices/+/temperature"
DONE = "road/done"
PATIENCE = 60

verb, url = sys.argv[1:3]
host, port = url.split("://")[1].split("/")[0].split(":")


def hung():
    print("hung", file=sys.stderr, flush=True)
    os._exit(3)


def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


class Meter:
    def __init__(self):
        self.before = memory("VmRSS")

    def start(self):
        print("ready", flush=True)
        self.cpu = time.process_time_ns()
        self.wall = time.monotonic_ns()

    def report(self):
        cpu = time.process_time_ns() - self.cpu
        wall = time.monotonic_ns() - self.wall
        resident = [self.before, memory("VmRSS"), memory("VmHWM")]
        # No allocations are counted, and no round trips made.
        print("report", cpu, wall, 0, *resident, 0, 0, 0, flush=True)
        os._exit(0)


def connected(client):
    connection = mqtt.Connection(
        client=client,
        host_name=host,
        port=int(port),
        client_id=str(uuid.uuid4()),
        use_websockets=True,
        keep_alive_secs=60,
        disable_metrics=True,
    )
    connection.connect().result(PATIENCE)
    return connection


def subscribe(connection, filter, qos, callback=None):
    future, _ = connection.subscribe(filter, qos, callback)
    future.result(PATIENCE)


def main():
    watch = threading.Timer(PATIENCE, hung)
    watch.daemon = True
    watch.start()
    meter = Meter()
    client = mqtt.Client()
    if verb in ("receive", "receive-ack"):
        qos = mqtt.QoS.AT_MOST_ONCE if verb == "receive" else mqtt.QoS.AT_LEAST_ONCE
        done = threading.Event()
        connection = connected(client)
        subscribe(connection, FILTER, qos)
        subscribe(connection, DONE, mqtt.QoS.AT_MOST_ONCE, lambda topic, payload, **_: done.set())
        meter.start()
        done.wait()
    else:
        print(f"not {verb}", file=sys.stderr)
        sys.exit(2)
    meter.report()


main()
