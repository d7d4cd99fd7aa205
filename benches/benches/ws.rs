//! Bytes through an open WebSocket, both ways, beside bare tokio-tungstenite with the same frames. The connection
//! is memory: what a system call costs is not in here.

use std::{
    hint::black_box,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, WebSocketConfig as Tungstenite},
    },
};
use ws_transport::{FramePacking, WebSocket, WebSocketConfig};

/// Says the same frame for ever, and takes everything.
struct Memory {
    wire: Bytes,
    at: usize,
}

impl Memory {
    fn frames(payload: usize) -> Self {
        let mut frame = vec![0x82];
        match u8::try_from(payload) {
            Ok(len @ 0..126) => frame.push(len),
            _ => {
                frame.push(126);
                let len = u16::try_from(payload).expect("a short frame");
                frame.extend_from_slice(&len.to_be_bytes());
            }
        }
        frame.resize(frame.len() + payload, 7);
        let times = (256 * 1024 / frame.len()).max(1);
        Self {
            wire: frame.repeat(times).into(),
            at: 0,
        }
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = buf.remaining().min(self.wire.len() - self.at);
        buf.put_slice(&self.wire[self.at..self.at + len]);
        self.at = (self.at + len) % self.wire.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(buf).len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Memory is never pending.
fn ready<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("pending"),
    }
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    ready(pin!(future).poll(&mut Context::from_waker(Waker::noop())))
}

fn ours(payload: usize, config: &WebSocketConfig) -> WebSocket {
    WebSocket::from_upgraded(Memory::frames(payload), Bytes::new(), config)
}

fn bare(payload: usize, config: Tungstenite) -> WebSocketStream<Memory> {
    at_once(WebSocketStream::from_raw_socket(
        Memory::frames(payload),
        Role::Client,
        Some(config),
    ))
}

/// The same buffers as ours; and what tungstenite does untold.
fn configs() -> [(&'static str, Tungstenite); 2] {
    [
        (
            "bare, same buffers",
            Tungstenite::default()
                .read_buffer_size(8 * 1024)
                .write_buffer_size(16 * 1024),
        ),
        ("bare, as it comes", Tungstenite::default()),
    ]
}

const MESSAGES: usize = 1000;
const BATCH: usize = 64;

fn receive(criterion: &mut Criterion) {
    for payload in [64, 16 * 1024] {
        let mut group = criterion.benchmark_group(format!("ws receive {payload} B"));
        group.throughput(Throughput::Elements(MESSAGES as u64));
        let mut cx = Context::from_waker(Waker::noop());
        let mut socket = ours(payload, &WebSocketConfig::new());
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                for _ in 0..MESSAGES {
                    let bytes = ready(socket.poll_recv(&mut cx))
                        .expect("a message")
                        .expect("bytes");
                    assert_eq!(bytes.len(), payload);
                }
            });
        });
        for (name, config) in configs() {
            let mut socket = bare(payload, config);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    for _ in 0..MESSAGES {
                        let message = ready(Pin::new(&mut socket).poll_next(&mut cx));
                        let message = message.expect("a message").expect("bytes");
                        assert_eq!(message.len(), payload);
                    }
                });
            });
        }
        group.finish();
    }
}

fn send(criterion: &mut Criterion) {
    for (payload, batch) in [(64, BATCH), (64, 1), (16 * 1024, 1)] {
        let mut group = criterion.benchmark_group(format!("ws send {payload} B, {batch} a flush"));
        group.throughput(Throughput::Elements(batch as u64));
        let mut cx = Context::from_waker(Waker::noop());
        let bytes = Bytes::from(vec![7; payload]);
        for (name, packing) in [
            ("ours", FramePacking::OnePerSend),
            ("ours, merged", FramePacking::Merge),
        ] {
            let mut socket = ours(payload, &WebSocketConfig::new().packing(packing));
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    for _ in 0..batch {
                        ready(socket.poll_ready(&mut cx)).expect("room");
                        socket.start_send(bytes.clone()).expect("sent");
                    }
                    ready(socket.poll_flush(&mut cx)).expect("flushed");
                });
            });
        }
        for (name, config) in configs() {
            let mut socket = bare(payload, config);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    for _ in 0..batch {
                        ready(Pin::new(&mut socket).poll_ready(&mut cx)).expect("room");
                        let message = Message::Binary(bytes.clone());
                        Pin::new(&mut socket).start_send(message).expect("sent");
                    }
                    ready(Pin::new(&mut socket).poll_flush(&mut cx)).expect("flushed");
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, receive, send);
criterion_main!(benches);
