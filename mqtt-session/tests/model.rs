//! Random histories against a reference model of what must arrive how often.

mod common;

use core::time::Duration;

use common::pair::Pair;
use common::resuming;
use mqtt_codec::{ProtocolVersion, QoS};
use mqtt_session::{
    CleanStart, Config, Disconnect, Persistence, RecordKey, SubscribeBeforeConnack, TransportEnd,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Publish(QoS),
    PublishInto(QoS),
    BrokerPublish(QoS),
    Subscribe(usize),
    Unsubscribe(usize),
    Acknowledge(usize),
    Transmit(usize),
    CarryUp(usize),
    CarryDown(usize),
    /// One round trip of whatever there is to say.
    Round,
    Settle,
    Connect,
    Die(TransportEnd),
    LoseSession,
    /// The broker refuses the next CONNECT.
    Refuse,
    Disconnect,
    Pass(u16),
    /// The session gives out what has changed.
    PollPersist,
    /// The oldest batch is stored.
    Store,
    /// The process dies and another takes over.
    Crash,
}

const FILTERS: [&str; 3] = ["down", "x/+", "y/#"];

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => qos().prop_map(Step::Publish),
        3 => qos().prop_map(Step::PublishInto),
        6 => qos().prop_map(Step::BrokerPublish),
        2 => (0..3_usize).prop_map(Step::Subscribe),
        1 => (0..3_usize).prop_map(Step::Unsubscribe),
        5 => any::<usize>().prop_map(Step::Acknowledge),
        6 => (1..200_usize).prop_map(Step::Transmit),
        6 => (1..80_usize).prop_map(Step::CarryUp),
        6 => (1..80_usize).prop_map(Step::CarryDown),
        10 => Just(Step::Round),
        1 => Just(Step::Settle),
        4 => Just(Step::Connect),
        2 => Just(Step::Die(TransportEnd::Failed)),
        1 => Just(Step::Die(TransportEnd::ClosedByPeer)),
        1 => Just(Step::LoseSession),
        1 => Just(Step::Refuse),
        1 => Just(Step::Disconnect),
        1 => (0..30_000_u16).prop_map(Step::Pass),
    ]
}

fn step_of_a_mortal() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => step(),
        3 => Just(Step::PollPersist),
        3 => Just(Step::Store),
        1 => Just(Step::Crash),
    ]
}

fn run(mut config: Config, receive_maximum: u16, replay_window: u16, steps: &[Step]) -> Pair {
    config.replay_window = replay_window.try_into().unwrap();
    // Any death may be the broker's doing here, and none is a message's.
    config.quarantine_after = u8::MAX.try_into().unwrap();
    config.max_filters_per_packet = 2.try_into().unwrap();
    config.max_pending_events = 3;
    config.receive_maximum = receive_maximum.try_into().unwrap();
    let mut pair = Pair::new(config);
    pair.broker.receive_maximum = receive_maximum;
    if pair.session.config().clean_start == CleanStart::Always {
        // Each connection begins with a new one.
        pair.sessions_lost = 1;
    }
    for step in steps {
        match *step {
            Step::Publish(qos) => pair.publish(qos),
            Step::PublishInto(qos) => pair.publish_into(qos),
            Step::BrokerPublish(qos) => pair.broker_publish(qos),
            Step::Subscribe(which) => pair.subscribe(FILTERS[which]),
            Step::Unsubscribe(which) => pair.unsubscribe(FILTERS[which]),
            Step::Acknowledge(which) => pair.acknowledge(which),
            Step::Transmit(limit) => pair.transmit(limit),
            Step::CarryUp(bytes) => drop(pair.carry_up(bytes)),
            Step::CarryDown(bytes) => drop(pair.carry_down(bytes)),
            Step::Round => {
                pair.transmit(1000);
                pair.carry_up(usize::MAX);
                pair.carry_down(usize::MAX);
            }
            Step::Settle => pair.settle(),
            Step::Connect => pair.connect(),
            Step::Die(end) => pair.die(end),
            Step::LoseSession => pair.lose_session(),
            Step::Refuse => pair.broker.refusals = 1,
            Step::Disconnect => {
                let _ = pair.session.disconnect(Disconnect::default(), pair.now);
                pair.transmit(1000);
                if pair.session.stats().connection.is_none() {
                    pair.die(TransportEnd::ClosedLocally);
                }
            }
            Step::PollPersist => pair.poll_persist(),
            Step::Store => drop(pair.store_one()),
            Step::Crash => pair.crash(),
            Step::Pass(millis) => {
                pair.pass(Duration::from_millis(u64::from(millis)));
                pair.settle();
            }
        }
        if pair.session.stats().connection.is_none() {
            pair.die(TransportEnd::ClosedLocally);
        }
    }
    pair.broker.refusals = 0;
    pair
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_repeated_leaked_or_stuck(
        v5 in any::<bool>(),
        receive_maximum in 1..5_u16,
        replay_window in 1..4_u16,
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut pair = run(resuming(version), receive_maximum, replay_window, &steps);
        pair.finish();
        pair.check();
    }

    #[test]
    fn nor_in_sessions_that_begin_anew_and_subscribe_before_the_connack(
        v5 in any::<bool>(),
        early in prop_oneof![Just(SubscribeBeforeConnack::WhenCertain), Just(SubscribeBeforeConnack::WhenClean)],
        receive_maximum in 1..5_u16,
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut config = Config::new(version, "client");
        config.subscribe_before_connack = early;
        let mut pair = run(config, receive_maximum, 1, &steps);
        pair.finish();
        pair.check();
    }

    #[test]
    fn a_process_that_dies_leaves_enough_behind(
        v5 in any::<bool>(),
        receive_maximum in 1..5_u16,
        replay_window in 1..4_u16,
        steps in proptest::collection::vec(step_of_a_mortal(), 0..150),
    ) {
        let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut config = resuming(version);
        config.persistence = Persistence::On;
        let mut pair = run(config, receive_maximum, replay_window, &steps);
        pair.finish();
        pair.check();
        pair.poll_persist();
        while pair.store_one() {}
        let left: Vec<_> = pair.store.keys().filter(|key| !matches!(key, RecordKey::Session | RecordKey::Subscription(_))).collect();
        prop_assert!(left.is_empty() || pair.was_fooled, "{:?}", left);
    }
}
