//! Every history of a small world: one message each way, and every order of what can happen, the death of the link at
//! every step included.
//!
//! The random histories of `model.rs` are longer; these leave none of their length out.

mod common;

use common::pair::Pair;
use common::resuming;
use mqtt_codec::{ProtocolVersion, QoS};
use mqtt_session::{Config, SubscribeBeforeConnack, TransportEnd};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The client says one packet, and the broker hears it.
    Up,
    /// The client says one packet, and it is still under way.
    Say,
    /// All that is under way reaches the client.
    Down,
    /// The application acknowledges its oldest message.
    Acknowledge,
    /// The link dies, and a new one is made.
    Die,
    /// The same, and the broker refuses the CONNECT on the new one.
    Refuse,
}

const STEPS: [Step; 5] = [
    Step::Up,
    Step::Say,
    Step::Down,
    Step::Acknowledge,
    Step::Die,
];

fn replay(version: ProtocolVersion, up: QoS, down: QoS, steps: &[Step]) -> Pair {
    let mut pair = Pair::new(resuming(version));
    pair.connect();
    pair.subscribe("down");
    pair.settle();
    pair.publish(up);
    pair.broker_publish(down);
    take(&mut pair, steps);
    pair
}

fn take(pair: &mut Pair, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Up => {
                pair.transmit(1);
                pair.carry_up(usize::MAX);
            }
            Step::Say => pair.transmit(1),
            Step::Down => drop(pair.carry_down(usize::MAX)),
            Step::Acknowledge => pair.acknowledge(0),
            Step::Die => {
                pair.die(TransportEnd::Failed);
                pair.connect();
            }
            Step::Refuse => {
                pair.die(TransportEnd::ClosedByPeer);
                pair.broker.refusals = 1;
                pair.connect();
            }
        }
        // Refused, it comes again.
        pair.connect();
    }
}

fn every_history(version: ProtocolVersion, up: QoS, down: QoS, length: u32) -> usize {
    let count = STEPS.len().pow(length);
    let mut steps = Vec::with_capacity(length as usize);
    for number in 0..count {
        steps.clear();
        let mut rest = number;
        for _ in 0..length {
            steps.push(STEPS[rest % STEPS.len()]);
            rest /= STEPS.len();
        }
        let mut pair = replay(version, up, down, &steps);
        pair.finish();
        pair.check();
        assert_eq!(pair.sessions_lost, 0);
        if up == QoS::ExactlyOnce {
            assert!(
                pair.broker.taken.values().all(|times| *times == 1),
                "{steps:?}"
            );
        }
    }
    count
}

#[test]
fn qos_1_at_least_once_and_qos_2_exactly_once_in_every_history() {
    let mut histories = 0;
    for version in common::VERSIONS {
        histories += every_history(version, QoS::AtLeastOnce, QoS::AtLeastOnce, 5);
        histories += every_history(version, QoS::ExactlyOnce, QoS::ExactlyOnce, 6);
    }
    assert_eq!(histories, 2 * (5_usize.pow(5) + 5_usize.pow(6)));
}

/// Sessions that end with their connection, and SUBSCRIBE before the CONNACK; the first connection and the call included.
#[test]
fn every_subscription_stands_in_every_history_of_early_subscribing() {
    const STEPS: [Step; 5] = [Step::Up, Step::Say, Step::Down, Step::Die, Step::Refuse];
    for version in common::VERSIONS {
        for number in 0..STEPS.len().pow(5) {
            let steps: Vec<Step> = (0..5)
                .map(|at| STEPS[number / STEPS.len().pow(at) % STEPS.len()])
                .collect();
            let mut config = Config::new(version, "client");
            config.subscribe_before_connack = SubscribeBeforeConnack::WhenCertain;
            let mut pair = Pair::new(config);
            // Each connection begins with a new one.
            pair.sessions_lost = 1;
            pair.subscribe("down");
            pair.connect();
            take(&mut pair, &steps[..2]);
            pair.subscribe("more");
            take(&mut pair, &steps[2..]);
            pair.broker.refusals = 0;
            pair.finish();
            pair.check();
            assert_eq!(pair.session.subscriptions().len(), 2, "{steps:?}");
        }
    }
}
