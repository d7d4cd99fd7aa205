//! Any packing of bytes into messages, frames, reads and writes, under any back-pressure and any cut, yields the
//! same bytes or a typed error.

mod common;

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use common::{
    chop::Chopped,
    frames::{self, BINARY, CONTINUATION, PING, PONG, close, frame, raw},
};
use futures_util::StreamExt as _;
use proptest::{collection::vec, prelude::*};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use ws_transport::{
    CloseOutcome, Connector, FramePacking, ProtocolViolation, WebSocket, WebSocketConfig,
    WebSocketError,
};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async {
            // On the paused clock this passes as soon as nobody can go on.
            tokio::time::timeout(Duration::from_secs(600), future)
                .await
                .expect("stuck")
        })
}

/// How a peer may pack a run of bytes, and what it may say in between.
#[derive(Clone, Debug)]
enum Part {
    /// A message in fragments; each may be empty, and a control frame may stand between them.
    Message(Vec<(Vec<u8>, Option<u8>)>),
    Control(u8),
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        24 => vec(any::<u8>(), 0..200),
        // The places where the length changes its form.
        1 => prop_oneof![Just(125), Just(126), Just(65_535), Just(65_536)]
            .prop_map(|len: usize| (0..len).map(|at| at.to_le_bytes()[0]).collect()),
    ]
}

fn control() -> impl Strategy<Value = u8> {
    prop_oneof![Just(PING), Just(PONG)]
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => vec((payload(), proptest::option::of(control())), 1..4).prop_map(Part::Message),
        1 => control().prop_map(Part::Control),
    ]
}

fn steps() -> impl Strategy<Value = Vec<usize>> {
    vec(
        prop_oneof![Just(0), Just(1), 1_usize..64, Just(100_000)],
        1..8,
    )
}

fn config() -> impl Strategy<Value = WebSocketConfig> {
    (
        prop_oneof![Just(256_usize), Just(8192), 256_usize..20_000],
        prop_oneof![Just(0_usize), Just(16 * 1024), 0_usize..500],
        prop_oneof![Just(16 * 1024_usize), 1_usize..300],
        prop_oneof![Just(FramePacking::OnePerSend), Just(FramePacking::Merge)],
    )
        .prop_map(|(read, write, split, packing)| {
            WebSocketConfig::new()
                .read_buffer_len(read)
                .write_buffer_len(write)
                .split_len(split)
                .packing(packing)
        })
}

/// The wire, the payloads of whole messages, and where each of those messages ends on the wire.
fn encode(parts: &[Part]) -> (Vec<u8>, Vec<(Vec<u8>, usize)>) {
    let mut wire = Vec::new();
    let mut messages = Vec::new();
    for part in parts {
        match part {
            Part::Control(opcode) => wire.extend(frame(*opcode, b"control")),
            Part::Message(fragments) => {
                let mut whole = Vec::new();
                for (at, (payload, control)) in fragments.iter().enumerate() {
                    let opcode = if at == 0 { BINARY } else { CONTINUATION };
                    let last = at + 1 == fragments.len();
                    wire.extend(raw(if last { 0x80 | opcode } else { opcode }, payload));
                    whole.extend_from_slice(payload);
                    if let (Some(control), false) = (control, last) {
                        wire.extend(frame(*control, b"between"));
                    }
                }
                messages.push((whole, wire.len()));
            }
        }
    }
    (wire, messages)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_packing_the_bytes_arrive(
        parts in vec(part(), 0..12),
        config in config(),
        ahead in 0_usize..100,
        reads in steps(),
        writes in steps(),
        pipe in 1_usize..5000,
        cut in proptest::option::of(any::<prop::sample::Index>()),
        many in proptest::option::of((1_usize..4, 1_usize..300)),
    ) {
        let (mut wire, messages) = encode(&parts);
        let whole = wire.len();
        wire.extend(close(1000, "bye"));
        let end = cut.map_or(wire.len(), |cut| cut.index(wire.len() + 1));
        wire.truncate(end);
        let expected: Vec<u8> = messages
            .iter()
            .filter(|(_, at)| *at <= end)
            .flat_map(|(payload, _)| payload.clone())
            .collect();

        let (received, error) = run(async {
            let (ours, mut theirs) = duplex(pipe);
            let ahead = wire.split_to_bytes(ahead.min(end));
            let io = Chopped::new(ours, reads, writes);
            let mut socket = WebSocket::from_upgraded(io, ahead, &config);
            let peer = async {
                // Pongs are read away, so that a full pipe does not stop the client.
                let (mut read, mut write) = tokio::io::split(&mut theirs);
                let mut sink = Vec::new();
                let write = async {
                    write.write_all(&wire).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                tokio::join!(write, read.read_to_end(&mut sink)).1.unwrap();
            };
            let client = async {
                let mut received = Vec::new();
                loop {
                    let next = match many {
                        None => socket.recv().await,
                        Some(limits) => recv_many(&mut socket, limits, &mut received).await,
                    };
                    match next {
                        Some(Ok(bytes)) => {
                            assert!(!bytes.is_empty());
                            received.extend_from_slice(&bytes);
                        }
                        Some(Err(error)) => {
                            assert!(socket.recv().await.is_none());
                            drop(socket);
                            return (received, error);
                        }
                        None => panic!("ended without a reason"),
                    }
                }
            };
            tokio::join!(client, peer).0
        });
        prop_assert_eq!(received, expected);
        match error {
            WebSocketError::ClosedByPeer(Some(frame)) => {
                prop_assert_eq!(frame.code, 1000);
                prop_assert!(end > whole);
            }
            WebSocketError::Disconnected => prop_assert!(cut.is_some()),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn whatever_the_back_pressure_the_bytes_leave(
        sends in vec((payload(), any::<bool>()), 0..12),
        config in config(),
        reads in steps(),
        writes in steps(),
        pipe in 1_usize..5000,
    ) {
        let split = split_len(&config);
        let merge = format!("{config:?}").contains("packing: Merge");
        let expected: Vec<u8> = sends.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let one_per_send: Vec<Vec<u8>> = sends
            .iter()
            .flat_map(|(bytes, _)| bytes.chunks(split).map(<[u8]>::to_vec))
            .collect();
        let (outcome, payloads) = run(async {
            let (ours, mut theirs) = duplex(pipe);
            let io = Chopped::new(ours, reads, writes);
            let mut socket = WebSocket::from_upgraded(io, Bytes::new(), &config);
            let client = async {
                for (bytes, flush) in sends {
                    poll_fn(|cx| socket.poll_ready(cx)).await.unwrap();
                    socket.start_send(bytes).unwrap();
                    if flush {
                        socket.flush().await.unwrap();
                    }
                }
                socket.close().await
            };
            let peer = async {
                let mut buffer = BytesMut::new();
                let mut payloads = Vec::new();
                loop {
                    let frame = frames::next(&mut theirs, &mut buffer).await.unwrap();
                    assert!(frame.is_final);
                    if frame.opcode != BINARY {
                        assert_eq!(frame.close_code(), 1000);
                        theirs.write_all(&close(1000, "")).await.unwrap();
                        return payloads;
                    }
                    payloads.push(frame.payload);
                }
            };
            tokio::join!(client, peer)
        });
        prop_assert_eq!(outcome, CloseOutcome::Closed);
        prop_assert!(payloads.iter().all(|payload| (1..=split).contains(&payload.len())));
        prop_assert_eq!(payloads.concat(), expected);
        if !merge {
            prop_assert_eq!(payloads, one_per_send);
        }
    }

    #[test]
    fn tungstenite_as_the_server_sees_the_same_bytes(
        sends in vec(payload(), 1..8),
        config in config(),
        reads in steps(),
        writes in steps(),
    ) {
        let expected = sends.concat();
        let (there, back) = run(async {
            let (ours, theirs) = duplex(3000);
            let io = Chopped::new(ours, reads, writes);
            let mut client = WebSocket::from_upgraded(io, Bytes::new(), &config);
            let server = async {
                let mut server =
                    WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
                let mut there = Vec::new();
                while there.len() < expected.len() {
                    let Some(Ok(Message::Binary(bytes))) = server.next().await else {
                        panic!("no message");
                    };
                    there.extend_from_slice(&bytes);
                }
                use futures_util::SinkExt as _;
                server.send(Message::Binary(there.clone().into())).await.unwrap();
                there
            };
            let client = async {
                for bytes in sends {
                    client.send(bytes).await.unwrap();
                }
                let mut back = Vec::new();
                while back.len() < expected.len() {
                    back.extend_from_slice(&client.recv().await.unwrap().unwrap());
                }
                back
            };
            tokio::join!(server, client)
        });
        prop_assert_eq!(&there, &expected);
        prop_assert_eq!(&back, &expected);
    }

    #[test]
    fn nonsense_ends_in_a_typed_error(
        wire in vec(prop_oneof![any::<u8>(), Just(0x82), Just(0), Just(0x88)], 0..300),
        reads in steps(),
    ) {
        run(async {
            let (ours, mut theirs) = duplex(10_000);
            theirs.write_all(&wire).await.unwrap();
            theirs.shutdown().await.unwrap();
            let io = Chopped::new(ours, reads, vec![1000]);
            let config = WebSocketConfig::new().max_message_len(125);
            let mut socket = WebSocket::from_upgraded(io, Bytes::new(), &config);
            let error = loop {
                match socket.recv().await.expect("an end has a reason") {
                    Ok(bytes) => assert!(bytes.len() <= 125),
                    Err(error) => break error,
                }
            };
            match error {
                WebSocketError::SendAfterClose | WebSocketError::Io(_) => panic!("{error:?}"),
                WebSocketError::Protocol(ProtocolViolation::Other) => panic!("unnamed"),
                _ => {}
            }
            assert_ne!(socket.close().await, CloseOutcome::TimedOut);
        });
    }

    #[test]
    fn a_nonsensical_answer_to_the_upgrade_is_a_typed_error(
        lines in vec(
            prop_oneof![
                Just("Upgrade: websocket".to_owned()),
                Just("Connection: Upgrade".to_owned()),
                Just("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned()),
                Just("Content-Length: 5".to_owned()),
                Just("Transfer-Encoding: chunked".to_owned()),
                "[ -~]{0,40}",
            ],
            0..8,
        ),
        status in prop_oneof![Just("HTTP/1.1 101 x"), Just("HTTP/1.1 403 x"), Just("HTTP/1.0 200"), Just("HTTP/1.1 100 x")],
        tail in vec(any::<u8>(), 0..100),
        prefix in proptest::option::of(vec(any::<u8>(), 0..20)),
        reads in steps(),
    ) {
        let mut answer = prefix.unwrap_or_default();
        answer.extend_from_slice(format!("{status}\r\n").as_bytes());
        for line in lines {
            answer.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(&tail);
        run(async {
            let (ours, mut theirs) = duplex(10_000);
            let io = std::sync::Mutex::new(Some(Chopped::new(ours, reads, vec![1000])));
            theirs.write_all(&answer).await.unwrap();
            theirs.shutdown().await.unwrap();
            // The key is random, so no answer made up beforehand can be right.
            let error = Connector::new()
                .dialer(common::Once(io))
                .connect(&"ws://localhost/".parse().unwrap(), &common::request())
                .await
                .unwrap_err();
            assert!(!error.to_string().is_empty());
        });
    }
}

/// `split_len` has no getter that a user would need.
/// What [`WebSocket::recv`] would give next, out of a batch of which all the rest goes to `received`.
async fn recv_many(
    socket: &mut WebSocket,
    (max_messages, max_bytes): (usize, usize),
    received: &mut Vec<u8>,
) -> Option<Result<Bytes, WebSocketError>> {
    let mut chunks = Vec::new();
    let end = poll_fn(|cx| {
        let before = chunks.len();
        let stopped = socket.poll_recv_many(cx, &mut chunks, max_messages, max_bytes);
        let batch = &chunks[before..];
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        // One message may go beyond, and none comes after it.
        let last = batch.last().map_or(0, Bytes::len);
        assert!(batch.len() <= max_messages && bytes - last < max_bytes);
        if let Poll::Ready(Some(Ok(()))) = stopped {
            assert!(batch.len() == max_messages || bytes >= max_bytes);
        }
        stopped
    })
    .await;
    let last = match end {
        Some(Ok(())) => chunks.pop().map(Ok),
        Some(Err(error)) => Some(Err(error)),
        None => None,
    };
    received.extend(chunks.concat());
    last
}

fn split_len(config: &WebSocketConfig) -> usize {
    let shown = format!("{config:?}");
    let digits = shown.split("split_len: ").nth(1).unwrap();
    digits.split(',').next().unwrap().parse().unwrap()
}

trait SplitToBytes {
    fn split_to_bytes(&mut self, at: usize) -> Bytes;
}

impl SplitToBytes for Vec<u8> {
    fn split_to_bytes(&mut self, at: usize) -> Bytes {
        let rest = self.split_off(at);
        Bytes::from(std::mem::replace(self, rest))
    }
}
