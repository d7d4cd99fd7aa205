//! mqtt-codec against mqttbytes, which knows nothing of ours: two readings of the same bytes.
//!
//! mqttbytes lets much through that the standard refuses, and panics on some of it, so the question
//! goes one way: what we accept, it must accept and understand alike; and what it writes of that, we
//! must read back as it was. Where it errs, the case is left out, with the reason.

use bytes::{Bytes, BytesMut};
use mqtt_codec::{PacketRef, ProtocolVersion, PublishRef, QoS, RetainHandling};
use mqttbytes::{v4, v5};

use crate::input::Input;

/// No frame here is larger.
const MAX: usize = 1 << 20;

/// The first byte chooses the version, the rest is one frame.
pub fn differential_packet(data: &[u8]) {
    let mut input = Input::new(data);
    let version = if input.flag() {
        ProtocolVersion::V5
    } else {
        ProtocolVersion::V311
    };
    let frame = input.rest();
    let Ok(ours) = PacketRef::decode(frame, version) else {
        return;
    };
    let mut theirs = BytesMut::from(frame);
    let mut written = BytesMut::new();
    if version == ProtocolVersion::V5 {
        let Some(expected) = to_v5(&ours) else { return };
        let read = v5::read(&mut theirs, MAX);
        assert_eq!(read.as_ref(), Ok(&expected), "{ours:?}");
        write_v5(&expected, &mut written);
    } else {
        let Some(expected) = to_v4(&ours) else { return };
        let read = v4::read(&mut theirs, MAX);
        assert_eq!(read.as_ref(), Ok(&expected), "{ours:?}");
        write_v4(&expected, &mut written);
    }
    assert!(theirs.is_empty(), "mqttbytes left {} bytes", theirs.len());
    match (ours, PacketRef::decode(&written, version)) {
        // It sorts the properties by kind.
        (PacketRef::Publish(one), Ok(PacketRef::Publish(other))) => {
            let without = |publish| PublishRef {
                properties: mqtt_codec::Properties::EMPTY,
                ..publish
            };
            assert_eq!(without(one), without(other));
            assert_eq!(
                one.properties.iter().count(),
                other.properties.iter().count()
            );
        }
        (one, other) => assert_eq!(other, Ok(one)),
    }
}

/// The same packet in the words of mqttbytes; `None` for what it cannot say.
fn to_v4(packet: &PacketRef<'_>) -> Option<v4::Packet> {
    Some(match packet {
        PacketRef::Connect(connect) => {
            let connect = connect.get();
            // A CONNECT names its own version, and mqttbytes has none for 3.1.
            if connect.version != ProtocolVersion::V311 {
                return None;
            }
            // The password is binary data (3.1.3.5); mqttbytes reads it as text, and takes an empty
            // user name or password for none.
            let password = connect.password.map(std::str::from_utf8);
            if password.is_some_and(|password| password.is_err() || password == Ok(""))
                || connect.user_name.is_some_and(|name| name.is_empty())
            {
                return None;
            }
            let login = connect.user_name.map(|name| v4::Login {
                username: name.as_str().to_owned(),
                password: password.and_then(Result::ok).unwrap_or_default().to_owned(),
            });
            v4::Packet::Connect(v4::Connect {
                protocol: mqttbytes::Protocol::V4,
                keep_alive: connect.keep_alive_secs,
                client_id: connect.client_id.as_str().to_owned(),
                clean_session: connect.clean_start,
                last_will: connect.will.map(|will| v4::LastWill {
                    topic: will.topic.as_str().to_owned(),
                    message: Bytes::copy_from_slice(will.payload),
                    qos: qos(will.qos),
                    retain: will.retain,
                }),
                login,
            })
        }
        PacketRef::Publish(publish) => v4::Packet::Publish(v4::Publish {
            dup: publish.dup,
            qos: qos(publish.qos),
            retain: publish.retain,
            topic: publish.topic.as_str().to_owned(),
            pkid: publish.packet_id.map_or(0, mqtt_codec::PacketId::value),
            payload: Bytes::copy_from_slice(publish.payload),
        }),
        PacketRef::Puback(ack) => v4::Packet::PubAck(v4::PubAck {
            pkid: ack.packet_id.value(),
        }),
        PacketRef::Pubrec(ack) => v4::Packet::PubRec(v4::PubRec {
            pkid: ack.packet_id.value(),
        }),
        PacketRef::Pubrel(ack) => v4::Packet::PubRel(v4::PubRel {
            pkid: ack.packet_id.value(),
        }),
        PacketRef::Pubcomp(ack) => v4::Packet::PubComp(v4::PubComp {
            pkid: ack.packet_id.value(),
        }),
        PacketRef::Subscribe(subscribe) => v4::Packet::Subscribe(v4::Subscribe {
            pkid: subscribe.packet_id.value(),
            filters: subscribe
                .subscriptions
                .iter()
                .map(|subscription| v4::SubscribeFilter {
                    path: subscription.filter.as_str().to_owned(),
                    qos: qos(subscription.options.qos),
                })
                .collect(),
        }),
        PacketRef::Suback(suback) => v4::Packet::SubAck(v4::SubAck {
            pkid: suback.packet_id.value(),
            return_codes: suback
                .reason_codes
                .iter()
                .map(|code| match QoS::from_u8(code.into()) {
                    Some(granted) => v4::SubscribeReasonCode::Success(qos(granted)),
                    None => v4::SubscribeReasonCode::Failure,
                })
                .collect(),
        }),
        PacketRef::Unsubscribe(unsubscribe) => v4::Packet::Unsubscribe(v4::Unsubscribe {
            pkid: unsubscribe.packet_id.value(),
            topics: unsubscribe
                .filters
                .iter()
                .map(|filter| filter.as_str().to_owned())
                .collect(),
        }),
        PacketRef::Unsuback(unsuback) => v4::Packet::UnsubAck(v4::UnsubAck {
            pkid: unsuback.packet_id.value(),
        }),
        PacketRef::Pingreq => v4::Packet::PingReq,
        PacketRef::Pingresp => v4::Packet::PingResp,
        PacketRef::Disconnect(_) => v4::Packet::Disconnect,
        PacketRef::Connack(_) | PacketRef::Auth(_) => return None,
    })
}

fn write_v4(packet: &v4::Packet, buffer: &mut BytesMut) {
    let written = match packet {
        v4::Packet::Connect(packet) => packet.write(buffer),
        v4::Packet::ConnAck(packet) => packet.write(buffer),
        v4::Packet::Publish(packet) => packet.write(buffer),
        v4::Packet::PubAck(packet) => packet.write(buffer),
        v4::Packet::PubRec(packet) => packet.write(buffer),
        v4::Packet::PubRel(packet) => packet.write(buffer),
        v4::Packet::PubComp(packet) => packet.write(buffer),
        v4::Packet::Subscribe(packet) => packet.write(buffer),
        v4::Packet::SubAck(packet) => packet.write(buffer),
        v4::Packet::Unsubscribe(packet) => packet.write(buffer),
        v4::Packet::UnsubAck(packet) => packet.write(buffer),
        v4::Packet::PingReq => v4::PingReq.write(buffer),
        v4::Packet::PingResp => v4::PingResp.write(buffer),
        v4::Packet::Disconnect => v4::Disconnect.write(buffer),
    };
    assert!(written.is_ok(), "mqttbytes cannot write {packet:?}");
}

/// PUBLISH and SUBSCRIBE, the packets with the most to get wrong.
fn to_v5(packet: &PacketRef<'_>) -> Option<v5::Packet> {
    Some(match packet {
        PacketRef::Publish(publish) => {
            let properties = publish.properties;
            // It counts a byte too many for each Subscription Identifier and loses its place.
            if properties.subscription_identifiers().next().is_some() {
                return None;
            }
            v5::Packet::Publish(v5::Publish {
                dup: publish.dup,
                qos: qos(publish.qos),
                retain: publish.retain,
                topic: publish.topic.as_str().to_owned(),
                pkid: publish.packet_id.map_or(0, mqtt_codec::PacketId::value),
                properties: (!properties.is_empty()).then(|| v5::PublishProperties {
                    payload_format_indicator: properties
                        .payload_format_indicator()
                        .map(|format| format as u8),
                    message_expiry_interval: properties.message_expiry_interval(),
                    topic_alias: properties.topic_alias().map(Into::into),
                    response_topic: properties
                        .response_topic()
                        .map(|topic| topic.as_str().to_owned()),
                    correlation_data: properties.correlation_data().map(Bytes::copy_from_slice),
                    user_properties: properties
                        .user_properties()
                        .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
                        .collect(),
                    subscription_identifiers: Vec::new(),
                    content_type: properties
                        .content_type()
                        .map(|kind| kind.as_str().to_owned()),
                }),
                payload: Bytes::copy_from_slice(publish.payload),
            })
        }
        PacketRef::Subscribe(subscribe) if subscribe.properties.is_empty() => {
            v5::Packet::Subscribe(v5::Subscribe {
                pkid: subscribe.packet_id.value(),
                filters: subscribe
                    .subscriptions
                    .iter()
                    .map(|subscription| v5::SubscribeFilter {
                        path: subscription.filter.as_str().to_owned(),
                        qos: qos(subscription.options.qos),
                        nolocal: subscription.options.no_local,
                        preserve_retain: subscription.options.retain_as_published,
                        retain_forward_rule: match subscription.options.retain_handling {
                            RetainHandling::SendAtSubscribe => {
                                v5::RetainForwardRule::OnEverySubscribe
                            }
                            RetainHandling::SendIfNew => v5::RetainForwardRule::OnNewSubscribe,
                            RetainHandling::DoNotSend => v5::RetainForwardRule::Never,
                        },
                    })
                    .collect(),
                properties: None,
            })
        }
        PacketRef::Pingreq => v5::Packet::PingReq,
        PacketRef::Pingresp => v5::Packet::PingResp,
        _ => return None,
    })
}

fn write_v5(packet: &v5::Packet, buffer: &mut BytesMut) {
    let written = match packet {
        v5::Packet::Publish(packet) => packet.write(buffer),
        v5::Packet::Subscribe(packet) => packet.write(buffer),
        v5::Packet::PingReq => v5::PingReq.write(buffer),
        _ => v5::PingResp.write(buffer),
    };
    assert!(written.is_ok(), "mqttbytes cannot write {packet:?}");
}

fn qos(qos: QoS) -> mqttbytes::QoS {
    match qos {
        QoS::AtMostOnce => mqttbytes::QoS::AtMostOnce,
        QoS::AtLeastOnce => mqttbytes::QoS::AtLeastOnce,
        QoS::ExactlyOnce => mqttbytes::QoS::ExactlyOnce,
    }
}
