//! Brokers, gateways and faults for the tests and examples of this workspace.
//!
//! Nothing here depends on a crate of ours, so that a test never has our own code as its judge.
//!
//! | module | what it gives | feature |
//! | --- | --- | --- |
//! | [`mosquitto`] | the system's mosquitto, the reference broker, for one test | |
//! | [`certs`] | an authority, and certificates good and bad | |
//! | [`peer`] | the other side of a connection, played by the test | |
//! | [`proxy`] | cuts, delays and black holes between a client and a broker | |
//! | [`port`] | a port that nobody else is given while nobody listens | |
//! | [`null_broker`] | acknowledges, counts and floods, for benchmarks of clients | |
//! | [`probe`] | a small MQTT 3.1.1 client made of bytes | |
#![cfg_attr(
    feature = "embedded",
    doc = "| [`embedded`] | a broker in this process | `embedded` |"
)]
#![cfg_attr(
    feature = "gateway",
    doc = "| [`gateway`] | an AWS IoT endpoint that checks signatures | `gateway` |"
)]
//!
//! Everything listens on 127.0.0.1 only, on ports that the system picks, and goes away when its
//! handle is dropped.

#![forbid(unsafe_code)]

pub mod certs;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod mosquitto;
mod net;
pub mod null_broker;
pub mod peer;
pub mod port;
pub mod probe;
pub mod proxy;
mod wire;
