//! What the handles ask for, on its way out: from their queue through the session to the transport, and the flush.

use std::task::{Context, Poll};

use bytes::Bytes;
use mqtt_session::Published;
use pubsub_core::{OfflinePolicy, OutboundMessage, PublishError, PublishSettler, PublishStage};

use crate::convert::{not_sent, session_publish};
use crate::driver::{Link, PendingPublish, Task};
use crate::inbox::{Command, Load};
use crate::keeper::Kept;
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
/// The same while nothing is published: a connection that only receives has little to say, and keeps its block.
const CONTROL_BLOCK: usize = 512;
/// With less room than this in a block, the next one is begun.
const OUTPUT_ROOM: usize = 256;

impl Task {
    /// Carries out what the handles have left.
    #[inline]
    pub(crate) fn take_requests(&mut self, cx: &mut Context<'_>) -> bool {
        if let Link::Open(open) = &mut self.link {
            open.is_full = false;
        }
        let is_idle = !self.shared.inbox.has_news()
            && self.batch.is_empty()
            && self.completed == Load::default()
            && !self.subscriptions.is_waiting_for_room();
        !is_idle && self.take_all_requests(cx)
    }

    #[inline(never)]
    fn take_all_requests(&mut self, cx: &mut Context<'_>) -> bool {
        self.is_listening = false;
        self.shared.inbox.take(&mut self.batch, &mut self.completed);
        self.settle_deliveries();
        if self.batch.excess != Load::default() {
            self.drop_the_oldest();
        }
        if let Some(farewell) = self.batch.farewell {
            self.may_have_armed = true;
            self.begin_closing(farewell);
        }
        // What they lead to is done in this round, or its step of the round says that there is more.
        for _ in 0..MAX_COMMANDS_A_ROUND {
            if self.is_reloading() {
                break;
            }
            let Some(mut command) = self.batch.commands.pop_front() else {
                break;
            };
            self.may_have_armed |= !matches!(command, Command::Publish { .. });
            if self.stopped.is_some() {
                match self.refuse_while_stopped(command) {
                    Some(accepted) => command = accepted,
                    None => continue,
                }
            }
            match command {
                Command::Publish { message, settler } => {
                    self.taken_up += 1;
                    self.publish(message, settler, cx);
                }
                Command::Operation(operation) => self.operation(operation),
                Command::Connect { reply } => self.connect_asked(reply),
                Command::Network(network) => self.network_changed(network),
            }
        }
        if self.subscriptions.is_waiting_for_room() {
            self.feed_operations();
        }
        !self.batch.commands.is_empty() && !self.is_reloading()
    }

    /// Takes a message into the session and, where nothing is before it and the transport has room, hands its packet on at
    /// once.
    fn publish(&mut self, message: OutboundMessage, settler: PublishSettler, cx: &mut Context<'_>) {
        self.demand();
        let bytes = message.topic.len() + message.payload.len();
        let offline = self.offline_policy(message.offline);
        let has_room = self.has_room(cx);
        // A connection that is being replaced is as good as one.
        let up = has_room || self.is_up() || self.renewing.is_between();
        if !up && offline == OfflinePolicy::Fail {
            return self.settle_publish(
                bytes,
                settler,
                Err(PublishError::NotSent(self.not_connected())),
            );
        }
        let publish = session_publish(message, self.shared.options.session.version);
        let published = if has_room {
            self.reserve_output(OUTPUT_BLOCK);
            self.session
                .publish_into(publish, &mut self.output, self.timestamp)
        } else {
            let queued = self.session.publish(publish, self.timestamp);
            queued.map(Published::Queued)
        };
        self.may_have_armed |= !matches!(published, Ok(Published::Done));
        let (id, written) = match published {
            Ok(Published::Done) => {
                self.unflushed.push(settler, bytes);
                let packet = self.written_packet();
                return self.send(packet);
            }
            Ok(Published::InFlight(id)) => (id, true),
            Ok(Published::Queued(id)) => (id, false),
            Err(error) => {
                return self.settle_publish(bytes, settler, Err(not_sent(error.reason())));
            }
        };
        if written {
            settler.reached(PublishStage::Written);
        }
        let pending = PendingPublish {
            settler,
            bytes,
            offline,
            written,
            kept: Kept::No,
        };
        self.publishes.insert(id, pending);
        if written {
            let packet = self.written_packet();
            self.send(packet);
        } else if !up {
            self.wait_offline(id, offline);
        }
    }

    /// Whether the transport takes a packet. It is asked no more in this round once it has said no.
    fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        let Link::Open(open) = &mut self.link else {
            return false;
        };
        if open.is_full || open.up_since.is_none() {
            return false;
        }
        match open.transport.poll_ready(cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => {
                self.transport_failed(error);
                false
            }
            Poll::Pending => {
                open.is_full = true;
                false
            }
        }
    }

    /// Hands a packet to the transport, which has room.
    #[inline]
    fn send(&mut self, packet: Bytes) {
        let Link::Open(open) = &mut self.link else {
            return;
        };
        self.shared.counters.bytes_sent(packet.len());
        open.unflushed = true;
        if let Err(error) = open.transport.start_send(packet) {
            self.transport_failed(error);
        }
    }

    fn reserve_output(&mut self, block: usize) {
        if self.output.capacity() < OUTPUT_ROOM {
            self.output.reserve(block);
        }
    }

    /// Writes what the session has to send, as much as the transport takes now. Returns whether there may be more.
    #[inline]
    pub(crate) fn transmit(&mut self, cx: &mut Context<'_>) -> bool {
        self.session.may_transmit() && self.transmit_packets(cx)
    }

    #[inline(never)]
    fn transmit_packets(&mut self, cx: &mut Context<'_>) -> bool {
        let mut written = 0;
        while written < MAX_PACKETS_A_ROUND && self.session.may_transmit() {
            self.may_have_armed = true;
            let Link::Open(open) = &mut self.link else {
                break;
            };
            match open.transport.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.transport_failed(error);
                    return true;
                }
                Poll::Pending => break,
            }
            let Some(packet) = self.next_packet() else {
                break;
            };
            self.send(packet);
            written += 1;
        }
        written == MAX_PACKETS_A_ROUND
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
        if !self.unflushed.is_empty() {
            self.settle_unflushed(Flush::Done);
        }
        false
    }

    /// The next packet that the session has to write.
    pub(crate) fn next_packet(&mut self) -> Option<Bytes> {
        self.reserve_output(match self.publishes.is_empty() {
            true => CONTROL_BLOCK,
            false => OUTPUT_BLOCK,
        });
        let now = self.timestamp;
        let len = self
            .session
            .poll_transmit(&mut self.output, ONE_PACKET, now);
        (len > 0).then(|| self.written_packet())
    }

    /// What the session has just written.
    #[inline]
    fn written_packet(&mut self) -> Bytes {
        self.output.split().freeze()
    }
}
