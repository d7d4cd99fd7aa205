//! mqtt-codec: what decodes, and what encodes, is whole and the same both ways.

use bytes::{Bytes, BytesMut};
use mqtt_codec::{
    AckRef, AuthRef, ConnackRef, ConnectRef, DecodeError, Decoder, DisconnectRef, Packet,
    PacketRef, Properties, Property, PropertyScope, ProtocolVersion, PublishRef, QoS, ReasonCode,
    ReasonCodes, SubackRef, SubscribeRef, Subscription, Subscriptions, TopicFilter, TopicFilters,
    UnsubscribeRef, WillRef,
};

use crate::input::Input;

/// The first byte chooses the version, the rest is one frame.
///
/// What is accepted must read the same as a view, as a shared packet and after another round through
/// the encoder; no front of it may be refused, and nothing may follow it. What is refused must be
/// refused by each way in, with a reason code that means failure.
pub fn decode_packet(data: &[u8]) {
    let mut input = Input::new(data);
    let version = input.version();
    let frame = input.rest();
    let owned = Packet::decode(Bytes::copy_from_slice(frame), version);
    match PacketRef::decode(frame, version) {
        Ok(view) => {
            assert_eq!(
                owned.as_ref().map(Packet::as_ref),
                Ok(view),
                "view and packet"
            );
            walk(&view);
            reencode(&view, version);
            fronts(frame, version);
            let longer = [frame, &[0]].concat();
            assert!(
                PacketRef::decode(&longer, version).is_err(),
                "a byte after the packet"
            );
        }
        Err(error) => {
            assert_eq!(owned.err(), Some(error), "view and packet disagree");
            assert!(error.reason_code().is_error());
            assert!(!error.to_string().is_empty());
            let mut decoder = Decoder::new(version);
            if let Ok(Some((_, length))) = decoder.decode_ref(frame) {
                // A packet and more: the stream has it, the single frame may not.
                assert!(length < frame.len());
            }
        }
    }
}

/// Builds a packet from the input, valid or not.
///
/// If the encoder takes it, it must write exactly as long a packet as it said, which decodes to the
/// same; if not, it must have written nothing.
pub fn roundtrip_packet(data: &[u8]) {
    let mut input = Input::new(data);
    let version = input.version();
    let kind = input.below(15);
    let scope = SCOPES[usize::from(kind)];
    let tidy = input.flag();
    let properties = properties(&mut input, scope, version, tidy);
    let will_properties = properties_of_will(&mut input, kind, version, tidy);
    let properties = Properties::list(&properties);
    let count = if kind > 6 { input.below(5) } else { 0 };
    let subscriptions: Vec<_> = (0..count)
        .map(|_| Subscription {
            filter: input.filter(),
            options: input.subscription_options(),
        })
        .collect();
    let filters: Vec<TopicFilter<'_>> = subscriptions
        .iter()
        .map(|subscription| subscription.filter)
        .collect();
    let codes: Vec<ReasonCode> = (0..count).map(|_| input.reason_code()).collect();

    let connect;
    let packet = match kind {
        0 => {
            connect = ConnectRef {
                version,
                clean_start: input.flag(),
                keep_alive_secs: input.u16(),
                properties,
                client_id: input.text(),
                will: input.flag().then(|| WillRef {
                    topic: input.topic(),
                    payload: input.bytes(),
                    qos: input.qos(),
                    retain: input.flag(),
                    properties: Properties::list(&will_properties),
                }),
                user_name: input.flag().then(|| input.text()),
                password: input.flag().then(|| input.bytes()),
            };
            PacketRef::from(&connect)
        }
        1 => PacketRef::Connack(ConnackRef {
            session_present: input.flag(),
            reason_code: input.reason_code(),
            properties,
        }),
        2 => {
            let qos = input.qos();
            let has_id = if tidy {
                qos != QoS::AtMostOnce
            } else {
                input.flag()
            };
            PacketRef::Publish(PublishRef {
                dup: input.flag(),
                qos,
                retain: input.flag(),
                topic: input.topic(),
                packet_id: has_id.then(|| input.packet_id()),
                properties,
                payload: input.rest(),
            })
        }
        3..7 => {
            let ack = AckRef {
                packet_id: input.packet_id(),
                reason_code: input.reason_code(),
                properties,
            };
            match kind {
                3 => PacketRef::Puback(ack),
                4 => PacketRef::Pubrec(ack),
                5 => PacketRef::Pubrel(ack),
                _ => PacketRef::Pubcomp(ack),
            }
        }
        7 => PacketRef::Subscribe(SubscribeRef {
            packet_id: input.packet_id(),
            properties,
            subscriptions: Subscriptions::list(&subscriptions),
        }),
        8 | 10 => {
            let packet_id = input.packet_id();
            let suback = SubackRef {
                packet_id,
                properties,
                reason_codes: ReasonCodes::list(&codes),
            };
            if kind == 8 {
                PacketRef::Suback(suback)
            } else {
                PacketRef::Unsuback(suback)
            }
        }
        9 => PacketRef::Unsubscribe(UnsubscribeRef {
            packet_id: input.packet_id(),
            properties,
            filters: TopicFilters::list(&filters),
        }),
        11 => PacketRef::Pingreq,
        12 => PacketRef::Pingresp,
        13 => PacketRef::Disconnect(DisconnectRef {
            reason_code: input.reason_code(),
            properties,
        }),
        _ => PacketRef::Auth(AuthRef {
            reason_code: input.reason_code(),
            properties,
        }),
    };

    let mut wire = BytesMut::new();
    match packet.encode(version, &mut wire) {
        Ok(()) => {
            assert_eq!(
                packet.encoded_len(version),
                Ok(wire.len()),
                "length said and written"
            );
            assert_eq!(PacketRef::decode(&wire, version), Ok(packet), "{version}");
            let mut grown = BytesMut::new();
            assert_eq!(packet.encode_to(version, &mut grown), Ok(()));
            assert_eq!(grown, wire, "the same bytes in fewer steps");
            let mut exact = vec![0; wire.len()];
            assert_eq!(packet.encode(version, &mut exact.as_mut_slice()), Ok(()));
            assert_eq!(exact, wire, "into a slice");
            let short = wire.len() - 1;
            assert!(
                packet.encode(version, &mut &mut exact[..short]).is_err(),
                "into a slice too short"
            );
            let mut slice = vec![0xEE; wire.len() + 1];
            assert_eq!(packet.encode_to_slice(version, &mut slice), Ok(wire.len()));
            assert_eq!(slice.pop(), Some(0xEE), "written behind the packet");
            assert_eq!(slice, wire, "the same bytes in the fewest steps");
            slice.fill(0xEE);
            assert!(
                packet
                    .encode_to_slice(version, &mut slice[..short])
                    .is_err()
            );
            assert!(
                slice.iter().all(|&byte| byte == 0xEE),
                "written in spite of too little room"
            );
        }
        Err(error) => {
            assert_eq!(packet.encode_to(version, &mut wire), Err(error));
            assert!(wire.is_empty(), "written before {error}");
            assert_eq!(packet.encode_to_slice(version, &mut [0; 64]), Err(error));
            assert!(
                packet.encoded_len(version).is_err(),
                "a length in spite of {error}"
            );
            assert!(!error.to_string().is_empty());
        }
    }
}

/// A stream cut into pieces as the input says yields what the whole stream yields, packet by packet.
pub fn decode_stream_split(data: &[u8]) {
    let mut input = Input::new(data);
    let version = input.version();
    let limit = if input.flag() {
        u32::from(input.u16())
    } else {
        1 << 20
    };
    let cuts = input.bytes();
    let stream = input.rest();

    let (expected, outcome) = whole(stream, version, limit);

    let mut decoder = Decoder::new(version).with_max_packet_size(limit);
    let mut buffer = BytesMut::new();
    let mut left = stream;
    let mut cuts = cuts
        .iter()
        .map(|&cut| usize::from(cut) + 1)
        .chain(std::iter::repeat(1));
    let mut packets = Vec::new();
    let mut error = None;
    while error.is_none() && !left.is_empty() {
        let (piece, rest) = left.split_at(cuts.next().unwrap_or(1).min(left.len()));
        left = rest;
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match decoder.decode(&mut buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => {
                    assert_eq!(
                        buffer.len(),
                        before,
                        "an incomplete packet stays in the buffer"
                    );
                    break;
                }
                Err(found) => {
                    assert_eq!(buffer.len(), before, "an error takes nothing");
                    assert_eq!(decoder.decode(&mut buffer), Err(found), "the same again");
                    error = Some(found);
                    break;
                }
            }
        }
        let pending = decoder.pending_len();
        assert!(
            error.is_none() || pending.is_none(),
            "nothing is waited for after an error"
        );
        assert!(
            pending.is_none_or(|length| length > buffer.len()),
            "a complete packet is not pending"
        );
        assert!(
            pending.is_none_or(|length| length <= limit as usize),
            "the limit holds at the header"
        );
    }

    assert_eq!(packets.len(), expected.len());
    for (one, other) in packets.iter().zip(&expected) {
        assert_eq!(one, other);
    }
    // A header that gives an error away does so before the body is there to give another.
    assert_eq!(error.is_some(), outcome.is_err(), "{error:?} {outcome:?}");
    if let Ok(unread) = outcome {
        assert_eq!(buffer.len(), unread);
    }
}

/// The packets of a stream that is there at once, and how many bytes stay, or the error that ends it.
fn whole(
    stream: &[u8],
    version: ProtocolVersion,
    limit: u32,
) -> (Vec<Packet>, Result<usize, DecodeError>) {
    let mut decoder = Decoder::new(version).with_max_packet_size(limit);
    let mut shared = Bytes::copy_from_slice(stream);
    let mut views = Decoder::new(version).with_max_packet_size(limit);
    let mut left = stream;
    let mut packets = Vec::new();
    loop {
        let packet = decoder.decode_bytes(&mut shared);
        let view = views.decode_ref(left);
        match (packet, view) {
            (Ok(Some(packet)), Ok(Some((view, length)))) => {
                assert_eq!(packet.as_ref(), view, "shared and borrowed");
                left = &left[length..];
                assert_eq!(left, &shared[..], "shared and borrowed take the same off");
                packets.push(packet);
            }
            (Ok(None), Ok(None)) => return (packets, Ok(left.len())),
            (Err(one), Err(other)) => {
                assert_eq!(one, other, "shared and borrowed");
                return (packets, Err(one));
            }
            (one, other) => panic!("shared {one:?}, borrowed {other:?}"),
        }
    }
}

/// Everything that a view hands out can be read.
fn walk(view: &PacketRef<'_>) {
    let properties = match view {
        PacketRef::Connect(packet) => {
            let packet = packet.get();
            let will = packet.will.map_or(0, |will| will.properties.iter().count());
            assert!(will < 1 << 20);
            packet.properties
        }
        PacketRef::Connack(packet) => packet.properties,
        PacketRef::Publish(packet) => packet.properties,
        PacketRef::Puback(packet) | PacketRef::Pubrec(packet) => packet.properties,
        PacketRef::Pubrel(packet) | PacketRef::Pubcomp(packet) => packet.properties,
        PacketRef::Subscribe(packet) => {
            assert!(packet.subscriptions.iter().count() > 0, "MQTT-3.8.3-2");
            packet.properties
        }
        PacketRef::Unsubscribe(packet) => {
            assert!(
                packet.filters.iter().all(|filter| !filter.is_empty()),
                "MQTT-4.7.3-1"
            );
            packet.properties
        }
        PacketRef::Suback(packet) | PacketRef::Unsuback(packet) => {
            assert_eq!(
                packet.reason_codes.iter().count(),
                packet.reason_codes.len()
            );
            packet.properties
        }
        PacketRef::Disconnect(packet) => packet.properties,
        PacketRef::Auth(packet) => packet.properties,
        PacketRef::Pingreq | PacketRef::Pingresp => return,
    };
    for property in properties.iter() {
        if let Property::UserProperty(name, value) = property {
            assert!(
                !name.as_str().contains('\0') && !value.as_str().contains('\0'),
                "MQTT-1.5.4-2"
            );
        }
    }
}

/// Encoded again, a packet is no longer than it was, decodes to the same, and stays as it is.
fn reencode(view: &PacketRef<'_>, version: ProtocolVersion) {
    let mut wire = BytesMut::new();
    view.encode(version, &mut wire)
        .expect("what was decoded can be encoded");
    assert_eq!(view.encoded_len(version), Ok(wire.len()));
    let again = PacketRef::decode(&wire, version).expect("what was encoded can be decoded");
    assert_eq!(&again, view);
    let mut third = BytesMut::new();
    again.encode(version, &mut third).expect("encoded before");
    assert_eq!(third, wire);
}

/// A packet that has not arrived in full is neither an error nor a packet.
fn fronts(frame: &[u8], version: ProtocolVersion) {
    let limit = u32::try_from(frame.len()).expect("a short frame").max(1);
    let last = frame.len().saturating_sub(1);
    for length in (0..frame.len().min(8)).chain([frame.len() / 2, last]) {
        let mut decoder = Decoder::new(version).with_max_packet_size(limit);
        let front = decoder.decode_ref(&frame[..length.min(last)]);
        assert!(
            matches!(front, Ok(None)),
            "the first {length} bytes: {front:?}"
        );
    }
}

const SCOPES: [PropertyScope; 15] = [
    PropertyScope::Connect,
    PropertyScope::Connack,
    PropertyScope::Publish,
    PropertyScope::Puback,
    PropertyScope::Pubrec,
    PropertyScope::Pubrel,
    PropertyScope::Pubcomp,
    PropertyScope::Subscribe,
    PropertyScope::Suback,
    PropertyScope::Unsubscribe,
    PropertyScope::Unsuback,
    PropertyScope::Disconnect,
    PropertyScope::Disconnect,
    PropertyScope::Disconnect,
    PropertyScope::Auth,
];

/// Up to seven properties; only allowed ones, and not twice, when they are to be tidy.
fn properties<'a>(
    input: &mut Input<'a>,
    scope: PropertyScope,
    version: ProtocolVersion,
    tidy: bool,
) -> Vec<Property<'a>> {
    let mut list: Vec<Property<'a>> = Vec::new();
    for _ in 0..input.below(8) {
        let property = input.property();
        let id = property.id();
        let again = list.iter().any(|before| before.id() == id) && !id.may_repeat_in(scope);
        let fits = version == ProtocolVersion::V5 && id.is_allowed_in(scope) && !again;
        if fits || !tidy {
            list.push(property);
        }
    }
    list
}

fn properties_of_will<'a>(
    input: &mut Input<'a>,
    kind: u8,
    version: ProtocolVersion,
    tidy: bool,
) -> Vec<Property<'a>> {
    if kind == 0 {
        properties(input, PropertyScope::Will, version, tidy)
    } else {
        Vec::new()
    }
}
