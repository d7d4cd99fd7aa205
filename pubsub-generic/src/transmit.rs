//! What the handles ask for, on its way out: from their queue through the session to the transport, and the flush.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::driver::{Link, Task};
use crate::inbox::Command;
use crate::operations::Flush;

/// Commands of the handles that are carried out in one round.
const MAX_COMMANDS_A_ROUND: usize = 256;
/// Packets that are written in one round.
const MAX_PACKETS_A_ROUND: usize = 256;
/// With a limit this low the session hands out one packet a call, which goes into a frame of its own.
const ONE_PACKET: usize = 1;
/// Packets are written into blocks of this size, so that many small ones share an allocation. Given back by the transport,
/// a block is used again.
const OUTPUT_BLOCK: usize = 4 * 1024;
/// With less room than this in a block, the next one is begun.
const OUTPUT_ROOM: usize = 256;

impl Task {
    /// Carries out what the handles have left.
    pub(crate) fn take_requests(&mut self) -> bool {
        self.shared.inbox.take(&mut self.batch, &mut self.completed);
        self.settle_deliveries();
        self.drop_the_oldest();
        if let Some(farewell) = self.batch.farewell {
            self.begin_closing(farewell);
        }
        let mut more = false;
        for _ in 0..MAX_COMMANDS_A_ROUND {
            if self.is_reloading() {
                break;
            }
            let Some(command) = self.batch.commands.pop_front() else {
                break;
            };
            more = true;
            let Some(command) = self.refuse_while_stopped(command) else {
                continue;
            };
            match command {
                Command::Publish { message, settler } => self.publish(message, settler),
                Command::Operation(operation) => self.operation(operation),
                Command::Connect { reply } => self.connect_asked(reply),
                Command::Network(network) => self.network_changed(network),
            }
        }
        if self.feed_operations() {
            self.count_subscriptions();
            more = true;
        }
        more
    }

    /// Writes what the session has to send, as much as the transport takes now.
    pub(crate) fn transmit(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.timestamp;
        let Link::Open(open) = &mut self.link else {
            return false;
        };
        let mut written = 0;
        let failure = loop {
            if written == MAX_PACKETS_A_ROUND {
                break None;
            }
            match open.transport.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => break Some(error),
                Poll::Pending => break None,
            }
            if self.output.capacity() < OUTPUT_ROOM {
                self.output.reserve(OUTPUT_BLOCK);
            }
            if self
                .session
                .poll_transmit(&mut self.output, ONE_PACKET, now)
                == 0
            {
                break None;
            }
            let packet = self.output.split().freeze();
            self.shared.counters.bytes_sent(packet.len());
            if let Err(error) = open.transport.start_send(packet) {
                break Some(error);
            }
            open.unflushed = true;
            written += 1;
        };
        if let Some(error) = failure {
            self.transport_failed(error);
            return true;
        }
        written > 0
    }

    /// Hands what this poll has written to the operating system.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let Link::Open(open) = &mut self.link else {
            return false;
        };
        if open.unflushed {
            match open.transport.poll_flush(cx) {
                Poll::Ready(Ok(())) => open.unflushed = false,
                Poll::Ready(Err(error)) => {
                    self.transport_failed(error);
                    return true;
                }
                Poll::Pending => return false,
            }
        }
        self.settle_unflushed(Flush::Done);
        false
    }

    /// The next packet that the session has to write.
    pub(crate) fn next_packet(&mut self) -> Option<Bytes> {
        let now = self.timestamp;
        if self
            .session
            .poll_transmit(&mut self.output, ONE_PACKET, now)
            == 0
        {
            return None;
        }
        Some(self.output.split().freeze())
    }
}
