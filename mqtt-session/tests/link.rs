//! The link dies at every byte of an exchange, in either direction, and once more in what follows.

mod common;

use common::pair::Pair;
use common::{VERSIONS, resuming};
use mqtt_codec::QoS;
use mqtt_session::{Config, TransportEnd};

/// A connection with something of every kind in both directions.
fn begin(config: Config) -> Pair {
    let mut pair = Pair::new(config);
    pair.connect();
    pair.subscribe("down");
    pair.settle();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        pair.publish(qos);
        pair.broker_publish(qos);
    }
    pair.subscribe("more");
    pair
}

/// Carries byte by byte until `up` bytes have gone up or `down` bytes have gone down. `false` if it came to rest before.
fn carry_until(pair: &mut Pair, up: usize, down: usize) -> bool {
    loop {
        let before = (pair.bytes_up, pair.bytes_down);
        pair.transmit(100);
        pair.acknowledge(0);
        if pair.carry_up(1) > 0 && pair.bytes_up == up {
            return true;
        }
        if pair.carry_down(1) > 0 && pair.bytes_down == down {
            return true;
        }
        if before == (pair.bytes_up, pair.bytes_down) {
            return false;
        }
    }
}

fn die_at_every_byte(keep_session: bool) {
    for version in VERSIONS {
        // The CONNECT of the first connection is included: with nothing known yet, a session that was lost is not missed.
        for (up_counts, limit) in [(true, usize::MAX), (false, usize::MAX)] {
            let mut at = 0;
            loop {
                at += 1;
                assert!(at < limit && at < 10_000);
                let mut pair = begin(resuming(version));
                let (up, down) = if up_counts {
                    (pair.bytes_up + at, usize::MAX)
                } else {
                    (usize::MAX, pair.bytes_down + at)
                };
                if !carry_until(&mut pair, up, down) {
                    break;
                }
                pair.die(TransportEnd::Failed);
                if !keep_session {
                    pair.lose_session();
                }
                pair.finish();
                pair.check();
            }
            assert!(at > 30, "there was something to cut: {at}");
        }
    }
}

#[test]
fn a_death_at_any_byte_loses_and_repeats_nothing() {
    die_at_every_byte(true);
}

#[test]
fn a_death_at_any_byte_with_a_broker_that_forgets() {
    die_at_every_byte(false);
}

#[test]
fn two_deaths_at_any_two_bytes() {
    two_deaths(true);
}

#[test]
fn two_deaths_at_any_two_bytes_with_a_broker_that_forgets_in_between() {
    two_deaths(false);
}

fn two_deaths(keep_session: bool) {
    for version in VERSIONS {
        let mut first = 0;
        loop {
            first += 2;
            let mut probe = begin(resuming(version));
            let start = probe.bytes_up + probe.bytes_down;
            let is_over = !carry_total(&mut probe, start + first);
            if is_over {
                break;
            }
            let mut second = 1;
            loop {
                second += 3;
                let mut pair = begin(resuming(version));
                assert!(carry_total(&mut pair, start + first));
                pair.die(TransportEnd::Failed);
                if !keep_session {
                    pair.lose_session();
                }
                pair.connect();
                let from = pair.bytes_up + pair.bytes_down;
                let was_cut = carry_total(&mut pair, from + second);
                pair.die(TransportEnd::Failed);
                pair.finish();
                pair.check();
                if !was_cut {
                    break;
                }
            }
        }
    }
}

fn carry_total(pair: &mut Pair, total: usize) -> bool {
    loop {
        let before = pair.bytes_up + pair.bytes_down;
        pair.transmit(100);
        pair.acknowledge(1);
        for step in [Pair::carry_up, Pair::carry_down] {
            step(pair, 1);
            if pair.bytes_up + pair.bytes_down >= total {
                return true;
            }
        }
        if before == pair.bytes_up + pair.bytes_down {
            return false;
        }
    }
}
