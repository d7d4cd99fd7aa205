//! The codec under `tokio_util::codec::Framed`: both directions, split input, and what follows an error.

mod common;

use bytes::BytesMut;
use common::*;
use futures_util::{SinkExt as _, StreamExt as _};
use mqtt_codec::{ProtocolVersion::*, *};
use tokio::io::{AsyncWriteExt as _, duplex};
use tokio_util::codec::{Decoder as _, Encoder as _, Framed};

/// A message, its acknowledgement with a reason, an empty packet and one that fills many pieces.
fn packets(payload: &[u8]) -> [PacketRef<'_>; 4] {
    [
        PublishRef::new(topic("a/b"), b"21.5").into(),
        PacketRef::Puback(AckRef {
            reason_code: ReasonCode::NoMatchingSubscribers,
            ..AckRef::new(id(7))
        }),
        PacketRef::Pingreq,
        PublishRef::new(topic("large"), payload).into(),
    ]
}

fn codec(version: ProtocolVersion) -> Codec {
    Codec::new(Decoder::new(version).with_max_packet_size(1024))
}

#[tokio::test]
async fn packets_cross_in_both_directions_through_a_pipe_of_any_width() {
    let payload = [0x55; 900];
    for width in [1, 2, 7, 64, 4096] {
        let (client, server) = duplex(width);
        let (mut out, back) = Framed::new(client, codec(V5)).split();
        let mut server = Framed::new(server, codec(V5));
        let send = async {
            for packet in packets(&payload) {
                out.send(packet).await.unwrap();
            }
        };
        let echo = async {
            for received in 0..4 {
                let packet = server.next().await.unwrap().unwrap();
                assert_eq!(packet.as_ref(), packets(&payload)[received]);
                server.send(&packet).await.unwrap();
            }
        };
        let returned = back.take(4).collect::<Vec<_>>();
        let ((), (), returned) = tokio::join!(send, echo, returned);
        assert_eq!(returned.len(), 4, "pieces of {width}");
        for (packet, sent) in returned.iter().zip(packets(&payload)) {
            let packet = packet.as_ref().unwrap();
            assert_eq!(packet.as_ref(), sent, "pieces of {width}");
        }
    }
}

#[tokio::test]
async fn one_stream_is_forwarded_to_another_sink() {
    let (near, relay_in) = duplex(64);
    let (relay_out, far) = duplex(64);
    let mut near = Framed::new(near, codec(V5));
    let from = Framed::new(relay_in, codec(V5));
    let to = Framed::new(relay_out, codec(V5));
    let send = async {
        near.send(packets(b"x")[0]).await.unwrap();
        drop(near);
    };
    let far = Framed::new(far, codec(V5)).collect::<Vec<_>>();
    let ((), forwarded, arrived) = tokio::join!(send, from.forward(to), far);
    forwarded.unwrap();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].as_ref().unwrap().as_ref(), packets(b"x")[0]);
}

#[tokio::test]
async fn what_came_before_an_error_arrives_and_nothing_after_it() {
    let (mut peer, transport) = duplex(4096);
    let mut framed = Framed::new(transport, codec(V311));
    // PINGRESP, a PUBLISH of QoS 3, PINGRESP.
    peer.write_all(&hex("D000 3605 0001 61 0001 D000"))
        .await
        .unwrap();
    let first = framed.next().await.unwrap();
    assert_eq!(first.unwrap(), Packet::Pingresp);
    let error = framed.next().await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            CodecError::Decode(DecodeError::Malformed(Malformed::QoS))
        ),
        "{error:?}"
    );
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(
        source.to_string(),
        DecodeError::from(Malformed::QoS).to_string()
    );
    assert!(framed.next().await.is_none(), "the stream has ended");
    // The way out is still open: MQTT 5 would say why with a DISCONNECT.
    framed.send(PacketRef::Pingreq).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_packet_is_an_error() {
    let (mut peer, transport) = duplex(64);
    let mut framed = Framed::new(transport, codec(V311));
    peer.write_all(&hex("4002 00")).await.unwrap();
    drop(peer);
    let error = framed.next().await.unwrap().unwrap_err();
    assert!(matches!(error, CodecError::Io(_)), "{error:?}");
    assert!(framed.next().await.is_none());
}

#[tokio::test]
async fn what_cannot_be_encoded_is_refused_and_the_next_packet_goes_out() {
    let (client, server) = duplex(64);
    let mut client = Framed::new(client, codec(V311));
    let mut server = Framed::new(server, codec(V311));
    let refused = PacketRef::Puback(AckRef {
        reason_code: ReasonCode::QuotaExceeded,
        ..AckRef::new(id(1))
    });
    let error = client.send(refused).await.unwrap_err();
    assert!(
        matches!(
            error,
            CodecError::Encode(EncodeError::ReasonCode(ReasonCode::QuotaExceeded))
        ),
        "{error:?}"
    );
    client.send(PacketRef::Pingreq).await.unwrap();
    assert_eq!(server.next().await.unwrap().unwrap(), Packet::Pingreq);
}

#[test]
fn room_is_made_for_a_packet_whose_length_is_known_and_for_no_more_than_the_limit() {
    let mut codec = codec(V311);
    let mut buf = BytesMut::from(&hex("30 E8 07")[..]);
    assert!(codec.decode(&mut buf).unwrap().is_none());
    assert_eq!(codec.decoder().pending_len(), Some(1003));
    assert!(buf.capacity() >= 1003);

    let mut buf = BytesMut::from(&hex("30 FF FF FF 7F")[..]);
    let mut codec = self::codec(V311);
    let error = codec.decode(&mut buf).unwrap_err();
    assert!(matches!(error, CodecError::Decode(_)), "{error:?}");
    assert!(
        buf.capacity() < 1024,
        "nothing is reserved for what is refused"
    );
}

#[test]
fn the_version_may_change_between_two_packets() {
    let mut codec = codec(V5);
    let mut buf = BytesMut::new();
    codec
        .encode(
            PacketRef::Disconnect(DisconnectRef::new(ReasonCode::ServerBusy)),
            &mut buf,
        )
        .unwrap();
    assert_eq!(buf, &hex("E001 89")[..]);
    codec.decoder_mut().set_version(V311);
    let error = codec
        .encode(
            PacketRef::Disconnect(DisconnectRef::new(ReasonCode::ServerBusy)),
            &mut buf,
        )
        .unwrap_err();
    assert!(matches!(error, CodecError::Encode(_)), "{error:?}");
    assert_eq!(buf.len(), 3, "nothing is written");
    let error = codec.decode(&mut buf).unwrap_err();
    assert!(matches!(error, CodecError::Decode(_)), "{error:?}");
}
