//! What an idle connection holds and what a message costs, in bytes and allocations of the test's own thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ws_transport::{Connector, UpgradeRequest, WebSocket, WebSocketConfig};

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size().cast_signed());
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size().cast_signed());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Says so many frames of 64 bytes and then nothing; takes everything.
struct Memory {
    frames: usize,
    /// Where in a frame the last read stopped.
    at: usize,
}

const PAYLOAD: usize = 64;
const FRAME: [u8; 2 + PAYLOAD] = {
    let mut frame = [7; 2 + PAYLOAD];
    frame[0] = 0x82;
    frame[1] = 64;
    frame
};

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frames == 0 {
            return Poll::Pending;
        }
        while self.frames > 0 && buf.remaining() > 0 {
            let rest = &FRAME[self.at..];
            let len = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..len]);
            self.at += len;
            if self.at == FRAME.len() {
                self.at = 0;
                self.frames -= 1;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
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

fn open(frames: usize) -> WebSocket {
    let config = WebSocketConfig::new();
    WebSocket::from_upgraded(Memory { frames, at: 0 }, Bytes::new(), &config)
}

#[test]
fn a_connection_and_a_message_are_cheap() {
    const SOCKETS: usize = 100;
    const MESSAGES: usize = 10_000;
    let mut cx = Context::from_waker(Waker::noop());

    let before = LIVE.get();
    let mut sockets: Vec<_> = (0..SOCKETS).map(|_| open(0)).collect();
    for socket in &mut sockets {
        assert!(socket.poll_recv(&mut cx).is_pending());
    }
    let idle = (LIVE.get() - before) / SOCKETS.cast_signed();
    // The read buffer of 2 KiB and the socket itself.
    assert!(idle <= 2 * 1024 + 1024, "{idle} bytes an idle connection");
    drop(sockets);
    assert!(LIVE.get() <= before + 1024);

    let mut socket = open(MESSAGES);
    let before = ALLOCATIONS.get();
    for _ in 0..MESSAGES {
        let Poll::Ready(Some(Ok(bytes))) = socket.poll_recv(&mut cx) else {
            panic!("no message");
        };
        assert_eq!(bytes.len(), PAYLOAD);
    }
    let received = ALLOCATIONS.get() - before;
    assert!(
        received <= MESSAGES / 50,
        "{received} to receive {MESSAGES}"
    );

    let payload = Bytes::from_static(&[7; PAYLOAD]);
    let before = ALLOCATIONS.get();
    for at in 0..MESSAGES {
        assert!(socket.poll_ready(&mut cx).is_ready());
        socket.start_send(payload.clone()).unwrap();
        if at % 64 == 0 {
            assert!(socket.poll_flush(&mut cx).is_ready());
        }
    }
    let sent = ALLOCATIONS.get() - before;
    assert!(sent <= 50, "{sent} to send {MESSAGES}");
    println!("{idle} bytes idle, {received} allocations to receive, {sent} to send {MESSAGES}");
}

#[test]
fn a_connect_waits_in_little_room() {
    let (connector, request) = (Connector::new(), UpgradeRequest::new());
    let endpoint = "ws://localhost/".parse().unwrap();
    let connect = connector.connect_within(&endpoint, &request, Connector::DEFAULT_TIMEOUT);
    // Whoever boxes it wants a block that glibc keeps for the next one, which end at 1,032 bytes.
    assert!(size_of_val(&connect) <= 960, "{}", size_of_val(&connect));
}
