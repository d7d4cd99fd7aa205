//! A broker, or what passes for one, that refuses, answers garbage or stops half-way: every time a typed error that names
//! the cause, never a hang.
#![cfg(feature = "ws")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::time::Duration;

use common::{cause, client};
use pubsub_core::{ConnectionState as State, ProviderError, ProviderErrorKind, QoS};
use pubsub_generic::{
    ConnectErrorKind, ConnectionError, DEFAULT_NAME, MqttOptions, MqttProvider, OptionsError,
    PlainWs, ProtocolVersion, ReasonCode, Reconnect, TransportErrorKind,
};
use testkit::peer::{Peer, PeerSocket};
use testkit::port::Port;

fn options(peer: &Peer) -> MqttOptions {
    MqttOptions::new(peer.url()).connect_timeout(Duration::from_secs(60))
}

/// What `connect` says when the peer does this to the first connection.
async fn connecting<F>(
    options: impl FnOnce(MqttOptions) -> MqttOptions,
    play: impl FnOnce(PeerSocket) -> F,
) -> ProviderError
where
    F: Future<Output = std::io::Result<()>>,
{
    let peer = Peer::bind().await.unwrap();
    let (_pubsub, provider) = client(options(self::options(&peer)).reconnect(Reconnect::never()));
    let (error, played) = tokio::join!(provider.connect(), async {
        let socket = peer.accept().await?.upgrade().await?;
        play(socket).await
    });
    played.unwrap();
    error.unwrap_err()
}

#[tokio::test]
async fn each_return_code_of_mqtt_3_1_1_is_told_apart() {
    let codes = [
        (
            1,
            ReasonCode::UnsupportedProtocolVersion,
            ProviderErrorKind::Unsupported,
            false,
        ),
        (
            2,
            ReasonCode::ClientIdentifierNotValid,
            ProviderErrorKind::Invalid,
            false,
        ),
        (
            3,
            ReasonCode::ServerUnavailable,
            ProviderErrorKind::Refused,
            true,
        ),
        (
            4,
            ReasonCode::BadUserNameOrPassword,
            ProviderErrorKind::NotAuthenticated,
            false,
        ),
        (
            5,
            ReasonCode::NotAuthorized,
            ProviderErrorKind::NotAuthorized,
            false,
        ),
    ];
    for (code, reason, kind, retryable) in codes {
        let error = connecting(
            |options| options,
            async |mut socket: PeerSocket| {
                assert_eq!(socket.packet().await?[0], 0x10);
                socket.send([0x20, 2, 0, code]).await?;
                socket.closed().await
            },
        )
        .await;
        let Some(ConnectionError::Refused(refusal)) = cause(&error) else {
            panic!("{code}: {error:?}")
        };
        assert_eq!(
            (refusal.reason(), error.kind(), error.is_retryable()),
            (reason, kind, retryable),
            "{code}"
        );
    }
}

#[tokio::test]
async fn a_refusal_of_mqtt_5_comes_with_the_brokers_words() {
    let error = connecting(
        |options| options.protocol_version(ProtocolVersion::V5),
        async |mut socket: PeerSocket| {
            assert_eq!(socket.packet().await?[0], 0x10);
            socket.send(b"\x20\x0b\0\x8a\x08\x1f\0\x05go on").await?;
            socket.closed().await
        },
    )
    .await;
    let Some(ConnectionError::Refused(refusal)) = cause(&error) else {
        panic!("{error:?}")
    };
    assert_eq!(
        (refusal.reason(), refusal.text()),
        (ReasonCode::Banned, Some("go on"))
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn each_reason_code_of_a_connack_of_mqtt_5_is_told_apart() {
    use ProviderErrorKind as K;
    let codes: [(u8, ProviderErrorKind, bool); 21] = [
        (0x80, K::Refused, true),
        (0x81, K::Refused, false),
        (0x82, K::Refused, false),
        (0x83, K::Refused, true),
        (0x84, K::Unsupported, false),
        (0x85, K::Invalid, false),
        (0x86, K::NotAuthenticated, false),
        (0x87, K::NotAuthorized, false),
        (0x88, K::Refused, true),
        (0x89, K::Refused, true),
        (0x8a, K::NotAuthorized, false),
        (0x8c, K::NotAuthenticated, false),
        (0x90, K::Refused, false),
        (0x95, K::Refused, false),
        (0x97, K::LimitExceeded, true),
        (0x99, K::Refused, false),
        (0x9a, K::Refused, false),
        (0x9b, K::Refused, false),
        (0x9c, K::Refused, true),
        (0x9d, K::Refused, false),
        (0x9f, K::LimitExceeded, true),
    ];
    for (code, kind, retryable) in codes {
        let error = connecting(
            |options| options.protocol_version(ProtocolVersion::V5),
            async |mut socket: PeerSocket| {
                assert_eq!(socket.packet().await?[0], 0x10);
                socket.send([0x20, 3, 0, code, 0]).await?;
                socket.closed().await
            },
        )
        .await;
        let Some(ConnectionError::Refused(refusal)) = cause(&error) else {
            panic!("{code:02x}: {error:?}")
        };
        assert_eq!(u8::from(refusal.reason()), code);
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (kind, retryable),
            "{code:02x}"
        );
    }
}

#[tokio::test]
async fn garbage_instead_of_a_connack_names_the_rule() {
    let answers: [&[u8]; 5] = [
        &[0, 0],                            // no packet type
        &[0xff; 16],                        // flags that are reserved
        &[0x20, 0xff, 0xff, 0xff, 0xff, 1], // a length that never ends
        &[0xd0, 0],                         // a PINGRESP that nobody asked for
        &[0x20, 2, 0, 77],                  // a return code that there is not
    ];
    for answer in answers {
        let error = connecting(
            |options| options,
            async |mut socket: PeerSocket| {
                socket.packet().await?;
                socket.send(answer).await?;
                socket.closed().await
            },
        )
        .await;
        assert_eq!(
            error.kind(),
            ProviderErrorKind::Protocol,
            "{answer:02x?}: {error:?}"
        );
        assert!(
            matches!(cause(&error), Some(ConnectionError::Session(_))),
            "{answer:02x?}: {error:?}"
        );
    }
}

#[tokio::test]
//= test MQTT-6.0.0-1
//= test v3.1.1 MQTT-6.0.0-1
async fn a_text_frame_breaks_the_transports_protocol() {
    let error = connecting(
        |options| options,
        async |mut socket: PeerSocket| {
            socket.packet().await?;
            socket.send_text("hello").await?;
            socket.closed().await
        },
    )
    .await;
    let Some(ConnectionError::Transport(transport)) = cause(&error) else {
        panic!("{error:?}")
    };
    assert_eq!(transport.kind(), TransportErrorKind::Protocol);
}

#[tokio::test]
//= test MQTT-6.0.0-3
//= test v3.1.1 MQTT-6.0.0-3
async fn the_subprotocol_offered_is_mqtt_unless_told_otherwise() {
    for (chosen, offered) in [
        (None, Some("mqtt")),
        (Some("mqttv3.1"), Some("mqttv3.1")),
        (Some(""), None),
    ] {
        let peer = Peer::bind().await.unwrap();
        let mut options = options(&peer).reconnect(Reconnect::never());
        if let Some(chosen) = chosen {
            options = options.subprotocol(chosen);
        }
        let (_pubsub, provider) = client(options);
        let (connected, head) = tokio::join!(provider.connect(), async {
            let mut connection = peer.accept().await.unwrap();
            let head = connection.request().await.unwrap();
            connection.reset();
            head
        });
        connected.unwrap_err();
        assert_eq!(head.header("sec-websocket-protocol"), offered);
    }
}

#[tokio::test]
async fn a_peer_that_hangs_up_half_way_is_not_waited_for() {
    for half in [&[][..], &[0x20], &[0x20, 2, 0]] {
        let error = connecting(
            |options| options,
            async |mut socket: PeerSocket| {
                socket.packet().await?;
                if !half.is_empty() {
                    socket.send(half).await?;
                }
                socket.finish().await
            },
        )
        .await;
        let Some(ConnectionError::NoConnack(transport)) = cause(&error) else {
            panic!("{error:?}")
        };
        assert_eq!(transport.kind(), TransportErrorKind::Closed);
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_refused_upgrade_comes_with_its_answer() {
    for (status, kind, retryable) in [
        (401, ProviderErrorKind::NotAuthenticated, false),
        (403, ProviderErrorKind::NotAuthorized, false),
        (404, ProviderErrorKind::Refused, false),
        (503, ProviderErrorKind::Refused, true),
    ] {
        let peer = Peer::bind().await.unwrap();
        let (_pubsub, provider) = client(options(&peer).reconnect(Reconnect::never()));
        let (error, refused) = tokio::join!(provider.connect(), async {
            let mut connection = peer.accept().await?;
            connection.request().await?;
            connection
                .refuse(
                    &format!("{status} No"),
                    &[("x-reason", "marker-of-the-server")],
                    b"go away",
                )
                .await
        });
        refused.unwrap();
        let error = error.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (kind, retryable),
            "{status}"
        );
        let Some(ConnectionError::Connect(connect)) = cause(&error) else {
            panic!("{error:?}")
        };
        assert_eq!(connect.kind(), ConnectErrorKind::Refused);
        let refusal = connect.refusal().unwrap();
        assert_eq!(
            (refusal.status, refusal.header("x-reason")),
            (status, Some("marker-of-the-server"))
        );
        assert!(!format!("{error:?}").contains("marker"), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_the_upgrade_is_left_at_the_deadline() {
    let peer = Peer::bind().await.unwrap();
    let (_pubsub, provider) = client(options(&peer).connect_timeout(Duration::from_millis(200)));
    let (error, connection) = tokio::join!(provider.connect(), peer.accept());
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::TimedOut, "{error:?}");
    connection.unwrap().closed().await.unwrap();
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_at_once_and_tried_again() {
    let nobody = Port::reserve().unwrap();
    let url = format!("ws://{}/mqtt", nobody.address());
    let (pubsub, provider) = client(MqttOptions::new(url));
    let error = provider.connect().await.unwrap_err();
    let Some(ConnectionError::Connect(connect)) = cause(&error) else {
        panic!("{error:?}")
    };
    assert_eq!(connect.kind(), ConnectErrorKind::Dial);
    assert!(error.is_retryable());
    let state = pubsub.connection(DEFAULT_NAME).unwrap().current().state;
    assert!(
        matches!(state, State::ConnectionDisrupted | State::Connecting),
        "{state}"
    );
}

#[tokio::test]
async fn what_a_connected_broker_breaks_ends_the_connection_and_not_the_program() {
    let wrongs: [&[u8]; 5] = [
        &[0x20, 2, 0, 0],                // a second CONNACK
        &[0x36, 4, 0, 1, b'a', b'x'],    // QoS 3
        b"\x30\x05\0\x03a/#",            // a wildcard in a topic
        &[0x82, 6, 0, 1, 0, 1, b'a', 0], // a packet of a client
        b"\x30\x04\0\x02\xff\xfe",       // a topic that is not UTF-8
    ];
    let peer = Peer::bind().await.unwrap();
    let reconnect = Reconnect::default()
        .first(Duration::ZERO)
        .base(Duration::from_millis(1))
        .cap(Duration::from_millis(1));
    let (pubsub, provider) = client(options(&peer).reconnect(reconnect));
    let mut watch = pubsub.connection(DEFAULT_NAME).unwrap();
    let (connected, mut socket) = tokio::join!(provider.connect(), async {
        let mut socket = peer.accept().await.unwrap().upgrade().await.unwrap();
        socket.accept_connect().await.unwrap();
        socket
    });
    connected.unwrap();
    for wrong in wrongs {
        watch.reached(State::Connected).await.unwrap();
        socket.send(wrong).await.unwrap();
        let lost = watch.reached(State::ConnectionDisrupted).await.unwrap();
        let reason = lost.reason.unwrap();
        assert_eq!(
            reason.kind(),
            ProviderErrorKind::Protocol,
            "{wrong:02x?}: {reason:?}"
        );
        socket = peer.accept().await.unwrap().upgrade().await.unwrap();
        socket.accept_connect().await.unwrap();
    }
    let (published, ()) = tokio::join!(
        async { pubsub.publish("a", "x").qos(QoS::AtLeastOnce).await },
        async {
            let publish = socket.packet().await.unwrap();
            socket
                .send([0x40, 2, publish[5], publish[6]])
                .await
                .unwrap();
        }
    );
    published.unwrap();
}

#[tokio::test]
async fn packets_may_be_cut_and_joined_anywhere() {
    let peer = Peer::bind().await.unwrap();
    let (pubsub, _provider) = client(options(&peer));
    let (messages, mut socket) = tokio::join!(async { pubsub.subscribe("a").await }, async {
        let mut socket = peer.accept().await.unwrap().upgrade().await.unwrap();
        let connect = socket.packet().await.unwrap();
        assert_eq!(connect[0], 0x10);
        for byte in [0x20, 2, 0, 0] {
            socket.send([byte]).await.unwrap();
        }
        let subscribe = socket.packet().await.unwrap();
        // The SUBACK and the first message in one frame, the second message byte by byte.
        let mut joined = vec![0x90, 3, subscribe[2], subscribe[3], 0];
        joined.extend_from_slice(b"\x30\x04\0\x01a1");
        socket.send(joined).await.unwrap();
        for byte in b"\x30\x04\0\x01a2" {
            socket.send([*byte]).await.unwrap();
        }
        socket
    });
    let mut messages = messages.unwrap();
    assert_eq!(messages.next().await.unwrap().unwrap().payload, "1");
    assert_eq!(messages.next().await.unwrap().unwrap().payload, "2");
    let closing = pubsub.close();
    let (closed, ()) = tokio::join!(closing, async {
        socket.expect(&[0xe0, 0]).await.unwrap();
        socket.closed().await.unwrap();
    });
    closed.unwrap();
}

#[test]
fn options_are_judged_before_anything_is_sent() {
    type Judge = fn(&OptionsError) -> bool;
    let base = || MqttOptions::new("wss://broker.example/mqtt");
    let wrongs: [(MqttOptions, Judge); 14] = [
        (MqttOptions::new(""), |error| {
            matches!(error, OptionsError::Url(_))
        }),
        (MqttOptions::new("https://broker.example/"), |error| {
            matches!(error, OptionsError::Url(_))
        }),
        (MqttOptions::new("wss://u:p@broker.example/"), |error| {
            matches!(error, OptionsError::Url(_))
        }),
        (MqttOptions::new("ws://broker.example/mqtt"), |error| {
            matches!(error, OptionsError::PlainUrl)
        }),
        (base().subprotocol("a b"), |error| {
            matches!(error, OptionsError::Url(_))
        }),
        (base().header("Upgrade", "x"), |error| {
            matches!(error, OptionsError::Url(_))
        }),
        (base().header("bad name", "x"), |error| {
            matches!(error, OptionsError::Url(_))
        }),
        (base().extra_roots_pem("no certificate"), |error| {
            matches!(error, OptionsError::Url(_))
        }),
        (base().password("p"), |error| {
            matches!(error, OptionsError::Session(_))
        }),
        (base().keep_alive(Duration::from_secs(70_000)), |error| {
            matches!(error, OptionsError::Session(_))
        }),
        (base().connect_timeout(Duration::ZERO), |error| {
            matches!(error, OptionsError::Zero { .. })
        }),
        (
            base().reconnect(Reconnect::default().cap(Duration::ZERO)),
            |error| matches!(error, OptionsError::ReconnectCap),
        ),
        (
            base().session(pubsub_generic::SessionMode::Persistent {
                expiry: Duration::from_secs(9),
            }),
            |error| matches!(error, OptionsError::PersistentWithoutClientId),
        ),
        (base().max_packet_size(10), |error| {
            matches!(error, OptionsError::Session(_))
        }),
    ];
    for (options, judge) in wrongs {
        let shown = format!("{options:?}");
        let error = MqttProvider::new(options).unwrap_err();
        assert!(judge(&error), "{shown}: {error:?}");
    }
    MqttProvider::new(MqttOptions::new("ws://broker.example/mqtt").plain_ws(PlainWs::Anywhere))
        .unwrap();
    MqttProvider::new(MqttOptions::new("ws://127.0.0.1:1/mqtt")).unwrap();
}

#[test]
fn nothing_secret_shows() {
    let options = MqttOptions::new("wss://broker.example/mqtt?token=marker")
        .user_name("marker")
        .password("marker")
        .header("Authorization", "Bearer marker")
        .will(pubsub_generic::Will::new("gone", "marker"));
    assert!(!format!("{options:?}").contains("marker"), "{options:?}");
    let provider = MqttProvider::new(options).unwrap();
    assert!(!format!("{provider:?}").contains("marker"));
    let error =
        MqttProvider::new(MqttOptions::new("wss://user:marker@broker.example/")).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("marker"));
}
