//! Zero-copy encoder and decoder for MQTT 3.1, 3.1.1 and 5.0 control packets.
//!
//! Everything here is wire format: no sockets, no clock, no session state. The protocol version is a
//! value, and both directions are covered, so a client, a broker, a proxy or an analyser can use it.
//!
//! There are two layers with the same names:
//!
//! * **Borrowed views**: [`PacketRef`] and its parts ([`PublishRef`], [`ConnectRef`], …) point into the bytes
//!   that they were decoded from. Repeated fields (properties, filters, reason codes) are checked blocks
//!   with iterators. The same types are what you fill in to encode.
//! * **Owned packets**: [`Packet`] keeps one shared handle ([`bytes::Bytes`]) on its frame, and offsets. It
//!   allocates nothing and copies nothing; [`Packet::as_ref`] leads back to the view.
//!
//! [`Decoder`] takes packets off a stream that arrives in pieces of any size.
//!
//! ```
//! use bytes::BytesMut;
//! use mqtt_codec::{Decoder, Packet, PacketRef, ProtocolVersion, PublishRef, TopicName};
//!
//! let version = ProtocolVersion::V5;
//!
//! let mut wire = BytesMut::new();
//! let publish = PublishRef::new(TopicName::new("sensors/1/temperature")?, b"21.5");
//! PacketRef::from(publish).encode(version, &mut wire)?;
//!
//! let mut decoder = Decoder::new(version);
//! let Some(Packet::Publish(publish)) = decoder.decode(&mut wire)? else {
//!     panic!("a whole PUBLISH was written");
//! };
//! assert_eq!(publish.topic(), "sensors/1/temperature");
//! assert_eq!(publish.payload(), b"21.5");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)
)]

extern crate alloc;

#[cfg(feature = "tokio-util")]
mod codec;
mod decoder;
mod error;
mod header;
mod packet;
mod packet_id;
mod packet_type;
mod property;
mod qos;
mod reason;
mod text;
mod version;
mod wire;

#[cfg(feature = "tokio-util")]
pub use codec::{Codec, CodecError};
pub use decoder::{DEFAULT_MAX_PACKET_SIZE, Decoder, MAX_PACKET_SIZE};
pub use error::{DecodeError, EncodeError, Malformed, ProtocolError, TextError};
pub use packet::{
    Ack, AckRef, Auth, AuthRef, Connack, ConnackRef, Connect, ConnectRef, ConnectView, Disconnect,
    DisconnectRef, Packet, PacketRef, Publish, PublishRef, ReasonCodes, ReasonCodesIter,
    RetainHandling, Suback, SubackRef, Subscribe, SubscribeRef, Subscription, SubscriptionOptions,
    Subscriptions, SubscriptionsIter, TopicFilters, TopicFiltersIter, Unsubscribe, UnsubscribeRef,
    WillRef,
};
pub use packet_id::{PacketId, SubscriptionId};
pub use packet_type::PacketType;
pub use property::{
    PayloadFormat, Properties, PropertiesIter, Property, PropertyBlock, PropertyBuf, PropertyId,
    PropertyScope,
};
pub use qos::QoS;
pub use reason::ReasonCode;
pub use text::{SharedTopicName, Text, TopicFilter, TopicName};
pub use version::ProtocolVersion;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
