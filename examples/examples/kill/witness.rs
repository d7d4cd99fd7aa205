//! The subscriber, made of bytes: it shares no code with what it judges.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use testkit::probe::{Probe, ProbeError};

/// Where the last message of all goes.
pub(crate) const END: &str = "kill/end";

/// How often each message came, by what its payload begins with.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<HashMap<String, u32>>);

impl Arrivals {
    pub(crate) fn times(&self, name: &str) -> u32 {
        let arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.get(name).copied().unwrap_or(0)
    }

    /// Of one QoS: how many came, and how many of those more than once.
    pub(crate) fn counts(&self, qos: &str) -> (usize, usize) {
        let arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_qos = || arrivals.iter().filter(|(name, _)| name.starts_with(qos));
        (
            of_qos().count(),
            of_qos().filter(|(_, times)| **times > 1).count(),
        )
    }

    fn note(&self, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        let name: Vec<&str> = text.splitn(4, ' ').take(3).collect();
        let mut arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *arrivals.entry(name.join(" ")).or_default() += 1;
    }
}

/// Asks for everything at QoS 2.
pub(crate) async fn subscribe(url: &str) -> Result<Probe, ProbeError> {
    let mut probe = Probe::connect(url, "witness").await?;
    probe.send(&b"\x82\x0b\0\x01\0\x06kill/#\x02"[..]).await?;
    probe.expect(b"\x90\x03\0\x01\x02").await?;
    Ok(probe)
}

/// Notes what comes, until the last message of all.
pub(crate) async fn watch(mut probe: Probe, arrivals: &Arrivals) -> Result<(), ProbeError> {
    loop {
        let packet = match probe.packet().await {
            Ok(packet) => packet,
            // Between two lives it may be quiet for long.
            Err(ProbeError::Timeout) => {
                probe.send(&b"\xc0\0"[..]).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        match packet[0] >> 4 {
            3 => {
                let Some((topic, id, payload)) = take_apart(&packet) else {
                    return Err(ProbeError::Unexpected(packet));
                };
                let answer = match packet[0] >> 1 & 3 {
                    2 => 0x50,
                    _ => 0x40,
                };
                probe.send(vec![answer, 2, id[0], id[1]]).await?;
                if topic == END.as_bytes() {
                    return Ok(());
                }
                arrivals.note(payload);
            }
            6 => probe.send(vec![0x70, 2, packet[2], packet[3]]).await?,
            13 => {}
            _ => return Err(ProbeError::Unexpected(packet)),
        }
    }
}

/// Topic, packet identifier and payload of a PUBLISH at QoS 1 or 2.
fn take_apart(packet: &Bytes) -> Option<(&[u8], [u8; 2], &[u8])> {
    let length_ends = packet.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 2;
    let body = packet.get(length_ends..)?;
    let (len, rest) = body.split_first_chunk()?;
    let (topic, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    let (id, payload) = rest.split_first_chunk()?;
    Some((topic, *id, payload))
}
