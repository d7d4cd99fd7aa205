//! Sans-IO MQTT client session: packet identifiers, QoS flows, keep alive and resumption without sockets or clocks.
