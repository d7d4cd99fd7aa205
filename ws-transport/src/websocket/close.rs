//! The closing handshake, under a deadline (RFC 6455 section 7).

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Sink as _, Stream as _};
use tokio::{
    io::AsyncWrite as _,
    time::{self, Instant},
};
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame as TungsteniteClose, Message as Frame, frame::coding::CloseCode,
};

use super::{State, WebSocket};

impl WebSocket {
    /// Closes: sends what was accepted and a close frame (1000), reads on until the peer's close frame or its
    /// end, and shuts the connection down; all within the close timeout. What still arrives is discarded.
    ///
    /// To be polled until it is ready; afterwards it says the same again.
    #[must_use = "a poll that is not looked at does nothing"]
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<CloseOutcome> {
        // A peer that never stops talking must not hold the task for ever.
        let mut steps = MAX_STEPS_PER_POLL;
        while steps > 0 {
            steps -= 1;
            match &self.state {
                State::Open => self.begin_close(CloseStep::Send, CloseOutcome::Dropped),
                // Our reply or our own close frame is with tungstenite already, or there is nobody to tell.
                State::Ended(outcome) => {
                    let outcome = *outcome;
                    self.begin_close(CloseStep::Flush, outcome);
                }
                State::Closed(outcome) => return Poll::Ready(*outcome),
                State::Closing(closing) => {
                    let (step, outcome) = (closing.step, closing.outcome);
                    let Poll::Ready((step, outcome)) = self.poll_close_step(cx, step, outcome)
                    else {
                        break;
                    };
                    match (&mut self.state, step) {
                        (State::Closing(closing), Some(step)) => {
                            closing.step = step;
                            closing.outcome = outcome;
                        }
                        _ => self.state = State::Closed(outcome),
                    }
                }
            }
        }
        if let State::Closing(closing) = &mut self.state
            && let Some(deadline) = &mut closing.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.state = State::Closed(CloseOutcome::TimedOut);
            return Poll::Ready(CloseOutcome::TimedOut);
        }
        if steps == 0 {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Closes; see [`poll_close`](Self::poll_close).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the closing where it is; calling again goes on with it, under the deadline
    /// of the first call.
    pub async fn close(&mut self) -> CloseOutcome {
        poll_fn(|cx| self.poll_close(cx)).await
    }

    fn begin_close(&mut self, step: CloseStep, outcome: CloseOutcome) {
        let deadline = Instant::now().checked_add(self.config.close_timeout);
        self.state = State::Closing(Closing {
            step,
            deadline: deadline.map(|deadline| Box::pin(time::sleep_until(deadline))),
            outcome,
        });
    }

    /// One step of closing; the next step, or `None` at the end.
    fn poll_close_step(
        &mut self,
        cx: &mut Context<'_>,
        step: CloseStep,
        outcome: CloseOutcome,
    ) -> Poll<(Option<CloseStep>, CloseOutcome)> {
        match step {
            CloseStep::Send => match self.poll_accepted(cx) {
                Poll::Ready(Ok(())) => {
                    // Flushed with it is what was accepted before: both leave in one write.
                    let close = Frame::Close(Some(TungsteniteClose {
                        code: CloseCode::Normal,
                        reason: "".into(),
                    }));
                    let next = match Pin::new(&mut self.inner).start_send(close) {
                        Ok(()) => CloseStep::AwaitPeer,
                        Err(_) => CloseStep::Shutdown,
                    };
                    Poll::Ready((Some(next), outcome))
                }
                Poll::Ready(Err(_)) => Poll::Ready((Some(CloseStep::Shutdown), outcome)),
                // Reading goes on: the peer may be blocked on us.
                Poll::Pending => Poll::Ready(match ready!(self.poll_discard(cx)) {
                    Heard::Data => (Some(step), outcome),
                    Heard::Close => (Some(CloseStep::Flush), CloseOutcome::Closed),
                    Heard::End => (None, outcome),
                }),
            },
            CloseStep::AwaitPeer => {
                // It was flushed as it was sent, or is flushed here.
                if let Poll::Ready(Err(_)) = Pin::new(&mut self.inner).poll_ready(cx) {
                    return Poll::Ready((Some(CloseStep::Shutdown), outcome));
                }
                Poll::Ready(match ready!(self.poll_discard(cx)) {
                    Heard::Data => (Some(step), outcome),
                    // Ours, and what is before it, may still be on its way.
                    Heard::Close => (Some(CloseStep::Flush), CloseOutcome::Closed),
                    // Nobody is left to shut it down for.
                    Heard::End => (None, outcome),
                })
            }
            CloseStep::Flush => {
                let _failed = ready!(Pin::new(&mut self.inner).poll_flush(cx));
                Poll::Ready((Some(CloseStep::Shutdown), outcome))
            }
            CloseStep::Shutdown => {
                let stream = Pin::new(self.inner.get_mut());
                let _failed = ready!(stream.poll_shutdown(cx));
                Poll::Ready((None, outcome))
            }
        }
    }

    /// Reads one frame and forgets it.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if self.has_taken_all(0) {
            let stream = self.inner.get_mut();
            ready!(stream.poll_more(cx));
            if stream.has_ended() {
                return Poll::Ready(Heard::End);
            }
        }
        Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
            Some(Ok(Frame::Close(_))) => Heard::Close,
            Some(Ok(_)) => Heard::Data,
            Some(Err(_)) | None => Heard::End,
        })
    }
}

/// The peer's reason for closing (RFC 6455 section 7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseFrame {
    /// The status code.
    pub code: u16,
    /// The peer's words, at most 123 bytes. Untrusted; often empty.
    pub reason: Box<str>,
}

impl From<TungsteniteClose> for CloseFrame {
    fn from(frame: TungsteniteClose) -> Self {
        Self {
            code: frame.code.into(),
            reason: frame.reason.as_str().into(),
        }
    }
}

/// How closing went. The connection is gone in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseOutcome {
    /// Both sides have said goodbye.
    Closed,
    /// The connection ended before both sides had: the peer dropped it, it failed, or the peer broke the
    /// protocol.
    Dropped,
    /// The close timeout passed first.
    TimedOut,
}

pub(super) struct Closing {
    step: CloseStep,
    /// `None` where the timeout is beyond what the clock can tell.
    deadline: Option<Pin<Box<time::Sleep>>>,
    outcome: CloseOutcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseStep {
    /// What was accepted before the close goes out first.
    Send,
    Flush,
    AwaitPeer,
    Shutdown,
}

enum Heard {
    Data,
    Close,
    End,
}

/// Frames discarded in one poll before the task gets its turn again.
const MAX_STEPS_PER_POLL: usize = 64;
