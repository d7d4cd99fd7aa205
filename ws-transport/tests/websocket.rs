//! An open WebSocket against a peer made of bytes.

mod common;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use common::chop::Chopped;
use common::frames::{self, BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame, raw};
use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex},
    time::Instant,
};
use ws_transport::{
    CloseOutcome, FramePacking, Message, ProtocolViolation, TextMessages, WebSocket,
    WebSocketConfig, WebSocketError,
};

async fn open(config: &WebSocketConfig) -> (WebSocket, DuplexStream) {
    let (ours, theirs) = duplex(1024 * 1024);
    let socket = WebSocket::from_upgraded(ours, Bytes::new(), config);
    (socket, theirs)
}

async fn default() -> (WebSocket, DuplexStream) {
    open(&WebSocketConfig::default()).await
}

/// What the client has sent so far, whole frames only.
fn sent(peer: &mut DuplexStream, buffer: &mut BytesMut) -> Vec<frames::Received> {
    std::iter::from_fn(|| frames::next(peer, buffer).now_or_never().flatten()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_text_message_ends_the_connection() {
    let (mut socket, mut peer) = default().await;
    peer.write_all(&frame(BINARY, b"fine")).await.unwrap();
    peer.write_all(&frame(TEXT, b"not fine")).await.unwrap();
    peer.write_all(&frame(BINARY, b"too late")).await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "fine");
    let error = socket.recv().await.unwrap().unwrap_err();
    assert!(matches!(error, WebSocketError::Text), "{error:?}");
    assert!(!error.is_retryable());
    assert!(socket.recv().await.is_none());
    let frames = sent(&mut peer, &mut BytesMut::new());
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].close_code(), 1003);
    assert!(matches!(
        socket.send("x").await,
        Err(WebSocketError::SendAfterClose)
    ));
}

#[tokio::test(start_paused = true)]
async fn text_is_delivered_where_allowed() {
    let (mut socket, mut peer) = open(&WebSocketConfig::new().text(TextMessages::Deliver)).await;
    let mut buffer = BytesMut::new();
    peer.write_all(&frame(TEXT, "zwölf".as_bytes()))
        .await
        .unwrap();
    peer.write_all(&frame(TEXT, b"")).await.unwrap();
    peer.write_all(&frame(BINARY, b"")).await.unwrap();
    peer.write_all(&frame(TEXT, b"bytes")).await.unwrap();
    for expected in [
        Message::Text("zwölf".to_owned()),
        Message::Text(String::new()),
        Message::Binary(Bytes::new()),
    ] {
        let message = std::future::poll_fn(|cx| socket.poll_recv_message(cx)).await;
        assert_eq!(message.unwrap().unwrap(), expected);
        socket.start_send_message(expected).unwrap();
    }
    assert_eq!(socket.recv().await.unwrap().unwrap(), "bytes");
    socket.flush().await.unwrap();
    let echoed: Vec<_> = sent(&mut peer, &mut buffer)
        .into_iter()
        .map(|frame| (frame.opcode, frame.payload))
        .collect();
    assert_eq!(
        echoed,
        [
            (TEXT, "zwölf".as_bytes().to_vec()),
            (TEXT, Vec::new()),
            (BINARY, Vec::new())
        ]
    );

    peer.write_all(&frame(TEXT, b"\xff")).await.unwrap();
    let error = socket.recv().await.unwrap().unwrap_err();
    assert!(
        matches!(error, WebSocketError::Protocol(ProtocolViolation::Utf8)),
        "{error:?}"
    );
    assert_eq!(sent(&mut peer, &mut buffer)[0].close_code(), 1007);
}

#[tokio::test(start_paused = true)]
async fn a_long_message_leaves_in_fragments_where_messages_matter() {
    let (mut socket, mut peer) = open(&WebSocketConfig::new().split_len(4)).await;
    socket
        .start_send_message(Message::Text("0123456789".to_owned()))
        .unwrap();
    socket.flush().await.unwrap();
    let frames: Vec<_> = sent(&mut peer, &mut BytesMut::new())
        .into_iter()
        .map(|frame| (frame.is_final, frame.opcode, frame.payload))
        .collect();
    assert_eq!(
        frames,
        [
            (false, TEXT, b"0123".to_vec()),
            (false, CONTINUATION, b"4567".to_vec()),
            (true, CONTINUATION, b"89".to_vec()),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn violations_are_named_and_answered() {
    use ProtocolViolation as V;
    for (bytes, violation) in [
        (raw(0xc2, b"x"), V::ReservedBits),
        (raw(0xa2, b"x"), V::ReservedBits),
        (raw(0x92, b"x"), V::ReservedBits),
        (raw(0x83, b"x"), V::Opcode),
        (raw(0x8b, b"x"), V::Opcode),
        (vec![0x82, 0x81, 1, 2, 3, 4, b'x'], V::Masked),
        (raw(0x09, b"x"), V::ControlFrame),
        (raw(0x89, &[0; 126]), V::ControlFrame),
        (raw(0x80, b"x"), V::Fragmentation),
        (
            [raw(0x02, b"x"), raw(0x82, b"y")].concat(),
            V::Fragmentation,
        ),
        (raw(0x88, b"x"), V::Close),
    ] {
        let (mut socket, mut peer) = default().await;
        peer.write_all(&bytes).await.unwrap();
        let error = socket.recv().await.unwrap().unwrap_err();
        match error {
            WebSocketError::Protocol(found) => assert_eq!(found, violation, "{bytes:x?}"),
            other => panic!("{bytes:x?}: {other:?}"),
        }
        assert!(socket.recv().await.is_none());
        let frames = sent(&mut peer, &mut BytesMut::new());
        assert_eq!(frames[0].close_code(), 1002, "{bytes:x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_the_limit_passes_and_one_more_byte_does_not() {
    const MAX: usize = 1000;
    let config = WebSocketConfig::new().max_message_len(MAX);
    let halves = |len: usize| {
        let mut bytes = raw(0x02, &[1; MAX / 2]);
        bytes.extend(raw(0x80, &vec![1; len - MAX / 2]));
        bytes
    };
    for bytes in [frame(BINARY, &[1; MAX]), halves(MAX)] {
        let (mut socket, mut peer) = open(&config).await;
        peer.write_all(&bytes).await.unwrap();
        assert_eq!(socket.recv().await.unwrap().unwrap().len(), MAX);
    }
    // The last one only announces its length: nothing is to be waited for, or reserved.
    let announced = vec![0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for bytes in [frame(BINARY, &[1; MAX + 1]), halves(MAX + 1), announced] {
        let (mut socket, mut peer) = open(&config).await;
        peer.write_all(&bytes).await.unwrap();
        let error = socket.recv().await.unwrap().unwrap_err();
        assert!(matches!(error, WebSocketError::TooLong), "{error:?}");
        assert_eq!(sent(&mut peer, &mut BytesMut::new())[0].close_code(), 1009);
    }
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_receiving() {
    let (mut socket, mut peer) = default().await;
    peer.write_all(&frame(PING, b"are you there"))
        .await
        .unwrap();
    assert!(socket.recv().now_or_never().is_none());
    let frames = sent(&mut peer, &mut BytesMut::new());
    assert_eq!(frames.len(), 1);
    assert_eq!(
        (frames[0].opcode, &frames[0].payload[..]),
        (PONG, &b"are you there"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_control_frames_and_empty_messages_lets_the_task_go() {
    for flood in [frame(PONG, b""), frame(BINARY, b"")] {
        let (mut socket, mut peer) = default().await;
        peer.write_all(&flood.repeat(10_000)).await.unwrap();
        let mut polls = 0;
        peer.write_all(&frame(BINARY, b"end")).await.unwrap();
        let received = std::future::poll_fn(|cx| {
            polls += 1;
            socket.poll_recv(cx)
        })
        .await;
        assert_eq!(received.unwrap().unwrap(), "end");
        assert!(polls > 100, "{polls}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_is_heard_and_answered() {
    for (bytes, code, reason) in [
        (close(1001, "going away"), 1001, "going away"),
        (close(4000, ""), 4000, ""),
    ] {
        let (mut socket, mut peer) = default().await;
        peer.write_all(&frame(BINARY, b"last words")).await.unwrap();
        peer.write_all(&bytes).await.unwrap();
        assert_eq!(socket.recv().await.unwrap().unwrap(), "last words");
        match socket.recv().await.unwrap().unwrap_err() {
            WebSocketError::ClosedByPeer(Some(frame)) => {
                assert_eq!((frame.code, &*frame.reason), (code, reason));
            }
            other => panic!("{other:?}"),
        }
        assert!(socket.recv().await.is_none());
        assert_eq!(sent(&mut peer, &mut BytesMut::new())[0].close_code(), code);
        assert_eq!(socket.close().await, CloseOutcome::Closed);
    }
    let (mut socket, mut peer) = default().await;
    peer.write_all(&frame(CLOSE, b"")).await.unwrap();
    let error = socket.recv().await.unwrap().unwrap_err();
    assert!(
        matches!(error, WebSocketError::ClosedByPeer(None)),
        "{error:?}"
    );
    assert!(error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_close_frame_is_a_disconnect() {
    for bytes in [&b""[..], b"\x82", b"\x82\x05hal", b"\x02\x04half"] {
        let (mut socket, mut peer) = default().await;
        peer.write_all(bytes).await.unwrap();
        drop(peer);
        let error = socket.recv().await.unwrap().unwrap_err();
        assert!(matches!(error, WebSocketError::Disconnected), "{error:?}");
        assert!(error.is_retryable());
        assert!(socket.recv().await.is_none());
        assert_eq!(socket.close().await, CloseOutcome::Dropped);
    }
}

#[tokio::test(start_paused = true)]
async fn closing_flushes_says_goodbye_and_waits_for_the_answer() {
    let (mut socket, mut peer) = default().await;
    socket.start_send("unflushed").unwrap();
    let start = Instant::now();
    let script = async {
        let mut buffer = BytesMut::new();
        let first = frames::next(&mut peer, &mut buffer).await.unwrap();
        assert_eq!(first.payload, b"unflushed");
        let second = frames::next(&mut peer, &mut buffer).await.unwrap();
        assert_eq!(second.close_code(), 1000);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        peer.write_all(&frame(BINARY, b"discarded")).await.unwrap();
        peer.write_all(&close(1000, "")).await.unwrap();
        assert!(frames::next(&mut peer, &mut buffer).await.is_none());
    };
    let (outcome, ()) = tokio::join!(socket.close(), script);
    assert_eq!(outcome, CloseOutcome::Closed);
    assert_eq!(start.elapsed(), Duration::from_millis(1500));
    // Again is harmless.
    assert_eq!(socket.close().await, CloseOutcome::Closed);
    assert!(socket.recv().await.is_none());
    assert!(socket.flush().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn closing_is_bounded_when_the_peer_does_not_answer() {
    let (mut socket, peer) = default().await;
    let start = Instant::now();
    assert_eq!(socket.close().await, CloseOutcome::TimedOut);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn closing_is_bounded_when_the_peer_does_not_read() {
    let (ours, peer) = duplex(8);
    let config = WebSocketConfig::new().close_timeout(Duration::from_millis(300));
    let mut socket = WebSocket::from_upgraded(ours, Bytes::new(), &config);
    socket.start_send(vec![0; 100_000]).unwrap();
    let start = Instant::now();
    assert_eq!(socket.close().await, CloseOutcome::TimedOut);
    assert_eq!(start.elapsed(), Duration::from_millis(300));
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn closing_is_bounded_when_the_peer_never_stops_talking() {
    let (mut socket, mut peer) = default().await;
    let talker = tokio::spawn(async move {
        loop {
            if peer.write_all(&frame(BINARY, b"more")).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let start = Instant::now();
    assert_eq!(socket.close().await, CloseOutcome::TimedOut);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    drop(socket);
    talker.await.unwrap();
}

/// Always has another frame to say, and takes everything.
struct Chatterbox;

impl AsyncRead for Chatterbox {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while buf.remaining() >= 2 {
            buf.put_slice(&[0x82, 0]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Chatterbox {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_pending_lets_the_task_go() {
    let timeout = Duration::from_millis(50);
    let config = WebSocketConfig::new().close_timeout(timeout);
    let mut socket = WebSocket::from_upgraded(Chatterbox, Bytes::new(), &config);
    assert!(socket.recv().now_or_never().is_none());
    assert!(socket.close().now_or_never().is_none());
    // Never idle, the runtime does not move the clock by itself.
    let (outcome, ()) = tokio::join!(socket.close(), tokio::time::advance(timeout * 2));
    assert_eq!(outcome, CloseOutcome::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn closing_listens_while_both_sides_are_blocked() {
    let (ours, mut peer) = duplex(16);
    let mut socket = WebSocket::from_upgraded(ours, Bytes::new(), &WebSocketConfig::new());
    socket.start_send(vec![1; 10_000]).unwrap();
    let script = async {
        // Says all it has to say before it listens.
        peer.write_all(&frame(BINARY, &[2; 10_000])).await.unwrap();
        let mut buffer = BytesMut::new();
        let data = frames::next(&mut peer, &mut buffer).await.unwrap();
        assert_eq!(data.payload.len(), 10_000);
        assert_eq!(
            frames::next(&mut peer, &mut buffer)
                .await
                .unwrap()
                .close_code(),
            1000
        );
        peer.write_all(&close(1000, "")).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(socket.close(), script);
    assert_eq!(outcome, CloseOutcome::Closed);
}

#[tokio::test(start_paused = true)]
async fn both_sides_may_close_at_once() {
    // Ours is on its way behind the data, or data still waits in front of it: then the peer's is answered.
    for (len, code) in [(10_000, 1000), (30_000, 1001)] {
        let (ours, mut peer) = duplex(16);
        let mut socket = WebSocket::from_upgraded(ours, Bytes::new(), &WebSocketConfig::new());
        socket.start_send(vec![1; len]).unwrap();
        let script = async {
            peer.write_all(&close(1001, "")).await.unwrap();
            let mut buffer = BytesMut::new();
            let mut received = 0;
            while received < len {
                let data = frames::next(&mut peer, &mut buffer).await.unwrap();
                received += data.payload.len();
            }
            let reply = frames::next(&mut peer, &mut buffer).await.unwrap();
            assert_eq!(reply.close_code(), code);
            assert!(frames::next(&mut peer, &mut buffer).await.is_none());
        };
        let (outcome, ()) = tokio::join!(socket.close(), script);
        assert_eq!(outcome, CloseOutcome::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_leaves_with_the_close_frame() {
    let (ours, mut peer) = duplex(1024);
    let (reads, writes) = (Arc::default(), Arc::<AtomicUsize>::default());
    let counted = Counted {
        io: ours,
        reads,
        writes: Arc::clone(&writes),
    };
    let mut socket = WebSocket::from_upgraded(counted, Bytes::new(), &WebSocketConfig::new());
    socket.start_send("last words").unwrap();
    assert!(socket.close().now_or_never().is_none());
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    assert_eq!(sent(&mut peer, &mut BytesMut::new()).len(), 2);
    // A peer that just hangs up is not said goodbye to once more.
    drop(peer);
    assert_eq!(socket.close().await, CloseOutcome::Dropped);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_close_goes_on_where_it_was() {
    let (mut socket, mut peer) = default().await;
    assert!(socket.close().now_or_never().is_none());
    assert!(socket.recv().await.is_none());
    let mut buffer = BytesMut::new();
    let frames = sent(&mut peer, &mut buffer);
    assert_eq!(frames.len(), 1);
    peer.write_all(&close(1000, "")).await.unwrap();
    assert_eq!(socket.close().await, CloseOutcome::Closed);
    assert!(sent(&mut peer, &mut buffer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_stops_the_sender_at_the_bound() {
    const PIPE: usize = 4096;
    let config = WebSocketConfig::new()
        .write_buffer_len(10_000)
        .split_len(1000);
    let (ours, mut peer) = duplex(PIPE);
    let mut socket = WebSocket::from_upgraded(ours, Bytes::new(), &config);
    let mut accepted = 0;
    while let Some(ready) = std::future::poll_fn(|cx| socket.poll_ready(cx)).now_or_never() {
        ready.unwrap();
        socket.start_send(vec![0; 100]).unwrap();
        accepted += 100;
    }
    // Headers not counted: 6 bytes to each 100.
    assert!(accepted <= PIPE + 10_000 + 1000, "{accepted}");
    assert!(accepted >= 9_000, "{accepted}");

    // A peer that pings meanwhile gets no more than the same buffer out of us.
    peer.write_all(&frame(PING, &[0; 125])).await.unwrap();
    for _ in 0..1000 {
        assert!(socket.recv().now_or_never().is_none());
        let _full = peer.write_all(&frame(PING, &[0; 125])).now_or_never();
    }
    // When it reads again, everything comes, unharmed.
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    loop {
        tokio::select! {
            biased;
            flushed = socket.flush() => break flushed.unwrap(),
            frame = frames::next(&mut peer, &mut buffer) => frames.push(frame.unwrap()),
        }
    }
    frames.extend(sent(&mut peer, &mut buffer));
    let (data, pongs): (Vec<_>, Vec<_>) = frames.into_iter().partition(|f| f.opcode == BINARY);
    let received: usize = data.iter().map(|frame| frame.payload.len()).sum();
    assert_eq!(received, accepted);
    assert!(pongs.len() < 20_000 / 125, "{}", pongs.len());
}

#[tokio::test(start_paused = true)]
async fn packing_may_merge_small_sends() {
    let config = WebSocketConfig::new()
        .packing(FramePacking::Merge)
        .split_len(10);
    let (mut socket, mut peer) = open(&config).await;
    let mut buffer = BytesMut::new();
    for part in ["abc", "", "defg", "hijkl", "mnopqrstuvwxyz"] {
        socket.start_send(part).unwrap();
    }
    socket.flush().await.unwrap();
    socket.send("!").await.unwrap();
    let payloads: Vec<_> = sent(&mut peer, &mut buffer)
        .into_iter()
        .map(|frame| String::from_utf8(frame.payload).unwrap())
        .collect();
    assert_eq!(payloads, ["abcdefghij", "klmnopqrst", "uvwxyz", "!"]);
}

/// Counts the calls that would be system calls.
struct Counted {
    io: DuplexStream,
    reads: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_takes_few_system_calls() {
    let (io, mut peer) = duplex(1024 * 1024);
    let (reads, writes) = (Arc::default(), Arc::default());
    let counted = Counted {
        io,
        reads: Arc::clone(&reads),
        writes: Arc::clone(&writes),
    };
    let mut socket = WebSocket::from_upgraded(counted, Bytes::new(), &WebSocketConfig::new());

    // 64 sends of 64 bytes are 70 bytes each on the wire: one write.
    for _ in 0..64 {
        std::future::poll_fn(|cx| socket.poll_ready(cx))
            .await
            .unwrap();
        socket.start_send(vec![0; 64]).unwrap();
    }
    assert_eq!(writes.load(Ordering::Relaxed), 0);
    socket.flush().await.unwrap();
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    assert_eq!(sent(&mut peer, &mut BytesMut::new()).len(), 64);
    // A lone one leaves at once.
    socket.send("alone").await.unwrap();
    assert_eq!(writes.load(Ordering::Relaxed), 2);

    // 66 bytes each on the wire: a read of 2 KiB, one of 16, one for the rest.
    peer.write_all(&frame(BINARY, &[0; 64]).repeat(1000))
        .await
        .unwrap();
    for _ in 0..1000 {
        let bytes = socket.recv().now_or_never().unwrap().unwrap().unwrap();
        assert_eq!(bytes.len(), 64);
    }
    let reads = reads.load(Ordering::Relaxed);
    assert_eq!(reads, 3);
}

/// A batch, and whether that was all there is.
fn batch(socket: &mut WebSocket, waker: &Waker) -> (Vec<Bytes>, bool) {
    let mut chunks = Vec::new();
    let mut cx = Context::from_waker(waker);
    let stopped = socket.poll_recv_many(&mut cx, &mut chunks, 256, 1024 * 1024);
    (chunks, stopped.is_pending())
}

#[tokio::test(start_paused = true)]
async fn messages_that_come_alone_wake_for_the_next_one_whatever_is_between_them() {
    let (mut socket, mut peer) = default().await;
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(batch(&mut socket, &waker).1);
    let mut fragments = raw(BINARY, b"frag");
    fragments.extend(raw(0x80 | CONTINUATION, b"ment"));
    let mut pinged = frame(PING, b"?");
    pinged.extend(frame(BINARY, b"pinged"));
    let mut ping_last = frame(BINARY, b"and a ping");
    ping_last.extend(frame(PING, b"?"));
    let half = frame(BINARY, b"half a message");
    let (head, tail) = half.split_at(5);
    let mut and_a_half = frame(BINARY, b"one");
    and_a_half.extend(head);
    let long = vec![1; 126];
    let longer = vec![2; 65_536];
    let texts = |texts: &[&'static str]| texts.iter().copied().map(Bytes::from).collect();
    for (wire, messages) in [
        (frame(BINARY, b"first"), texts(&["first"])),
        (frame(BINARY, b"second"), texts(&["second"])),
        (frame(BINARY, &long), vec![Bytes::from(long)]),
        (frame(BINARY, &longer), vec![Bytes::from(longer)]),
        (frame(BINARY, b"x").repeat(3), texts(&["x", "x", "x"])),
        (frame(PONG, b""), texts(&[])),
        (pinged, texts(&["pinged"])),
        (ping_last, texts(&["and a ping"])),
        (and_a_half, texts(&["one"])),
        (tail.to_vec(), texts(&["half a message"])),
        (frame(BINARY, b"whole"), texts(&["whole"])),
        (fragments, texts(&["fragment"])),
        (frame(BINARY, b"last"), texts(&["last"])),
    ] {
        let before = woken.0.load(Ordering::SeqCst);
        peer.write_all(&wire).await.unwrap();
        assert!(woken.0.load(Ordering::SeqCst) > before, "{messages:?}");
        assert_eq!(batch(&mut socket, &waker), (messages, true));
    }
    let answers = sent(&mut peer, &mut BytesMut::new());
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| answer.opcode == PONG));
}

#[tokio::test(start_paused = true)]
async fn an_end_behind_a_message_that_comes_alone_is_told() {
    let (mut socket, mut peer) = default().await;
    peer.write_all(&frame(BINARY, b"last")).await.unwrap();
    drop(peer);
    let mut chunks = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    let stopped = socket.poll_recv_many(&mut cx, &mut chunks, 256, 1024 * 1024);
    assert_eq!(chunks, ["last"]);
    let Poll::Ready(Some(Err(error))) = stopped else {
        panic!("{stopped:?}");
    };
    assert!(matches!(error, WebSocketError::Disconnected), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_message_that_comes_alone_is_found_where_it_is_there() {
    let (io, mut peer) = duplex(1024 * 1024);
    // Each read brings one message, though the next one is there.
    let message = frame(BINARY, &[0; 64]);
    let io = Chopped::new(io, vec![message.len()], vec![1000]);
    let mut socket = WebSocket::from_upgraded(io, Bytes::new(), &WebSocketConfig::new());
    peer.write_all(&message.repeat(20)).await.unwrap();
    let (messages, is_all) = batch(&mut socket, Waker::noop());
    assert_eq!((messages.len(), is_all), (20, true));
}

#[tokio::test(start_paused = true)]
async fn what_came_with_the_answer_to_the_upgrade_is_in_the_first_batch() {
    let (io, mut peer) = duplex(1024 * 1024);
    let ahead = Bytes::from(frame(BINARY, b"ahead").repeat(2));
    let mut socket = WebSocket::from_upgraded(io, ahead, &WebSocketConfig::new());
    peer.write_all(&frame(BINARY, b"behind")).await.unwrap();
    let (messages, is_all) = batch(&mut socket, Waker::noop());
    assert_eq!(messages, ["ahead", "ahead", "behind"]);
    assert!(is_all);
}

#[tokio::test(start_paused = true)]
async fn closing_between_batches_wakes_for_what_still_comes_until_the_answer() {
    for batches in 0..3 {
        let (mut socket, mut peer) = default().await;
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        for _ in 0..batches {
            peer.write_all(&frame(BINARY, b"x")).await.unwrap();
            assert_eq!(batch(&mut socket, &waker).0, ["x"]);
        }
        let mut cx = Context::from_waker(&waker);
        assert!(socket.poll_close(&mut cx).is_pending());
        let stopped = socket.poll_recv_many(&mut cx, &mut Vec::new(), 1, 1);
        assert!(matches!(stopped, Poll::Ready(None)), "{stopped:?}");
        let goodbye = close(1000, "");
        let (head, tail) = goodbye.split_at(1);
        for (wire, outcome) in [
            (&frame(BINARY, b"late")[..], Poll::Pending),
            (head, Poll::Pending),
            (tail, Poll::Ready(CloseOutcome::Closed)),
        ] {
            let before = woken.0.load(Ordering::SeqCst);
            peer.write_all(wire).await.unwrap();
            assert!(woken.0.load(Ordering::SeqCst) > before);
            assert_eq!(socket.poll_close(&mut cx), outcome);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closing_between_batches_ends_with_the_stream_and_not_before_what_came() {
    for behind in [
        &frame(BINARY, b"late")[..],
        &frame(BINARY, b"cut")[..4],
        b"",
    ] {
        let (mut socket, mut peer) = default().await;
        peer.write_all(&frame(BINARY, b"x")).await.unwrap();
        assert_eq!(batch(&mut socket, Waker::noop()).0, ["x"]);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(socket.poll_close(&mut cx).is_pending());
        peer.write_all(behind).await.unwrap();
        assert!(socket.poll_close(&mut cx).is_pending());
        drop(peer);
        for _ in 0..2 {
            let outcome = socket.poll_close(&mut cx);
            assert_eq!(outcome, Poll::Ready(CloseOutcome::Dropped));
        }
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
