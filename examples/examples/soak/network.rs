//! The network that the clients have to live with.

use std::time::Duration;

use testkit::proxy::{Cut, Direction, Link, Proxy};

use crate::random::Random;

/// How long a client may take to come back. With the policy it has it needs milliseconds.
const RETURN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait for a client to come back until it is cut once more: it may have been on its way
/// already, and not have noticed.
const CUT_AGAIN: Duration = Duration::from_millis(250);

/// What a connection has to go through until it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing.
    Clear,
    /// Ends after so many bytes, in the middle of the handshake or of a packet.
    CutAfter,
    /// Byte by byte.
    Dribble,
    /// Slow.
    Delay,
    /// Stands still for a moment, and may be cut then.
    Freeze,
    /// Accepted, and nothing else.
    BlackHole,
    /// Accepted and cut at once.
    Dead,
}

impl Fate {
    pub(crate) const ALL: [Self; 7] = [
        Self::Clear,
        Self::CutAfter,
        Self::Dribble,
        Self::Delay,
        Self::Freeze,
        Self::BlackHole,
        Self::Dead,
    ];

    fn draw(random: &mut Random) -> Self {
        match random.below(20) {
            0..7 => Self::CutAfter,
            7..12 => Self::Clear,
            12..14 => Self::Dribble,
            14..16 => Self::Delay,
            16..18 => Self::Freeze,
            18 => Self::BlackHole,
            _ => Self::Dead,
        }
    }

    fn link(self, random: &mut Random) -> Link {
        match self {
            Self::Clear | Self::Freeze => Link::clear(),
            Self::CutAfter => {
                let direction = random.either(Direction::ToServer, Direction::ToClient);
                // The upgrade and the CONNECT take some 400 bytes.
                let bytes = random.either(600, 40_000);
                Link::clear().cut_after(direction, random.below(bytes), cut(random))
            }
            Self::Dribble => Link::clear()
                .dribble(Direction::ToServer)
                .dribble(Direction::ToClient),
            Self::Delay => {
                let direction = random.either(Direction::ToServer, Direction::ToClient);
                Link::clear().delay(direction, milliseconds(1 + random.below(4)))
            }
            Self::BlackHole => Link::black_hole(),
            Self::Dead => Link::dead(cut(random)),
        }
    }

    async fn play(self, proxy: &Proxy, random: &mut Random) {
        match self {
            Self::Clear | Self::Delay | Self::Dribble => pause(random, 80).await,
            Self::CutAfter => {
                // A quiet connection may never carry that much.
                let end = proxy.wait_for(|counts| counts.open == 0);
                let _ = tokio::time::timeout(milliseconds(100), end).await;
            }
            Self::Freeze => {
                pause(random, 60).await;
                proxy.freeze();
                pause(random, 40).await;
                if random.below(2) == 0 {
                    proxy.cut_all(cut(random));
                }
                proxy.thaw();
                pause(random, 20).await;
            }
            Self::BlackHole => pause(random, 20).await,
            Self::Dead => {}
        }
    }
}

/// Cuts the connection through this proxy so many times. Returns how many connections had which fate, in
/// the order of [`Fate::ALL`].
///
/// # Errors
///
/// When the client does not come back.
pub(crate) async fn torment(
    proxy: &Proxy,
    cuts: u64,
    random: &mut Random,
) -> Result<[u64; Fate::ALL.len()], String> {
    let mut counts = [0; Fate::ALL.len()];
    for number in 0..cuts {
        let fate = Fate::draw(random);
        if let Some(at) = Fate::ALL.iter().position(|&other| other == fate) {
            counts[at] += 1;
        }
        cut_and_wait(proxy, fate.link(random), random)
            .await
            .map_err(|()| format!("the client did not come back after cut {number}"))?;
        fate.play(proxy, random).await;
    }
    // The last one, to end what the last connection goes through.
    cut_and_wait(proxy, Link::clear(), random)
        .await
        .map_err(|()| "the client did not come back after the last cut".to_owned())?;
    Ok(counts)
}

/// Cuts what is open, and waits for the client's next connection, which gets this link.
async fn cut_and_wait(proxy: &Proxy, link: Link, random: &mut Random) -> Result<(), ()> {
    let before = proxy.counts().accepted;
    proxy.next(link);
    let mut attempts = RETURN_TIMEOUT.div_duration_f64(CUT_AGAIN) as u32;
    loop {
        proxy.cut_all(cut(random));
        let returned = proxy.wait_for(|counts| counts.accepted > before);
        if tokio::time::timeout(CUT_AGAIN, returned).await.is_ok() {
            return Ok(());
        }
        attempts = attempts.checked_sub(1).ok_or(())?;
    }
}

fn cut(random: &mut Random) -> Cut {
    random.either(Cut::Finish, Cut::Reset)
}

async fn pause(random: &mut Random, end: u64) {
    tokio::time::sleep(milliseconds(random.below(end))).await;
}

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}
