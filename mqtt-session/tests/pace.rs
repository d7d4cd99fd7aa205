//! Publishes leave no faster than the configuration allows, on a virtual clock.

mod common;

use core::time::Duration;

use common::{Client, VERSIONS, config, resuming};
use mqtt_codec::{Packet, ProtocolVersion, QoS};
use mqtt_session::{Config, PublishPace, TransportEnd};

const PER: Duration = Duration::from_secs(1);

fn paced(mut config: Config, publishes: u16) -> Config {
    config.publish_pace = Some(PublishPace::new(publishes.try_into().unwrap(), PER));
    config
}

/// How many publishes leave now; their acknowledgements come at once.
fn publishes(client: &mut Client) -> usize {
    let mut count = 0;
    loop {
        let sent = client.sent();
        if sent.is_empty() {
            return count;
        }
        for packet in sent {
            if let Packet::Publish(publish) = packet {
                count += 1;
                if let Some(id) = publish.packet_id() {
                    client.puback(id.value());
                }
            }
        }
    }
}

#[test]
fn what_exceeds_the_pace_waits_and_none_is_lost() {
    for version in VERSIONS {
        let mut client = Client::connected(paced(config(version), 10));
        for number in 0..35 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce][number % 2];
            client.publish(&number.to_string(), qos);
        }
        for expected in [10, 10, 10, 5] {
            assert_eq!(publishes(&mut client), expected);
            client.pass(PER - Duration::from_millis(1));
            assert_eq!(publishes(&mut client), 0, "a burst is over for the second");
            client.pass(Duration::from_millis(1));
        }
        assert_eq!(client.outcomes().len(), 35);
    }
}

#[test]
fn the_session_says_when_the_next_one_may_leave() {
    let mut client = Client::connected(paced(config(ProtocolVersion::V5), 1));
    let keep_alive = client.session.poll_timeout().unwrap();
    client.publish("first", QoS::AtMostOnce);
    assert_eq!(publishes(&mut client), 1);
    assert!(
        client.session.poll_timeout().unwrap() >= keep_alive,
        "nothing waits"
    );
    client.publish("second", QoS::AtMostOnce);
    assert_eq!(publishes(&mut client), 0);
    assert_eq!(client.session.poll_timeout(), Some(client.now + PER));
    client.pass(PER);
    // Once the moment has come it is not named again: a driver would spin.
    assert!(client.session.poll_timeout().unwrap() > client.now);
    assert_eq!(publishes(&mut client), 1);
}

#[test]
fn other_packets_do_not_wait_behind_publishes() {
    let mut client = Client::connected(paced(config(ProtocolVersion::V5), 1));
    client.publish("1", QoS::AtMostOnce);
    client.publish("2", QoS::AtMostOnce);
    assert_eq!(publishes(&mut client), 1);
    client.deliver(QoS::AtMostOnce, 0, "down");
    let filter = mqtt_session::Subscription::new("a", QoS::AtMostOnce);
    client.session.subscribe(&[filter], client.now).unwrap();
    assert!(matches!(&client.sent()[..], [Packet::Subscribe(_)]));
}

/// What is sent again counts, and each connection counts for itself.
#[test]
fn resending_keeps_to_the_pace() {
    let mut client = Client::connected(paced(resuming(ProtocolVersion::V5), 4));
    for number in 0..6 {
        client.publish(&number.to_string(), QoS::AtLeastOnce);
    }
    assert_eq!(client.sent().len(), 4);
    client.close(TransportEnd::Failed);
    client.connect_with(true, &[]);
    assert_eq!(publishes(&mut client), 4);
    client.pass(PER);
    assert_eq!(publishes(&mut client), 2);
    assert_eq!(client.outcomes().len(), 6);
}

#[test]
fn a_pace_over_no_time_is_refused() {
    let mut config = paced(config(ProtocolVersion::V5), 1);
    config.publish_pace = Some(PublishPace::new(1.try_into().unwrap(), Duration::ZERO));
    assert!(mqtt_session::Session::new(config).is_err());
}
