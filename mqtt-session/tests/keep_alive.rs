//! Keep Alive as the driver sees it.

mod common;

use core::time::Duration;

use common::{Client, config};
use mqtt_codec::{PacketRef, Property, ProtocolVersion, QoS};
use mqtt_session::{ConnectionError, DisconnectCause, Event, Timeout};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
//= test MQTT-3.1.2-20
//= test v3.1.1 MQTT-3.1.2-23
fn an_idle_connection_is_pinged_and_the_answer_is_timed() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    client.events();
    assert_eq!(client.session.poll_timeout(), Some(client.now + secs(60)));
    client.pass(secs(60));
    client.pass(secs(0));
    assert_eq!(client.sent_words(), ["PINGREQ"], "once");
    client.now = client.now + secs(2);
    client.receive(PacketRef::Pingresp).unwrap();
    assert!(
        matches!(client.events().as_slice(), [Event::Pong { round_trip }] if *round_trip == secs(2))
    );
    assert_eq!(
        client.session.poll_timeout(),
        Some(client.now + secs(58)),
        "60 s after the PINGREQ"
    );
    client.receive(PacketRef::Pingresp).unwrap();
    assert!(
        client.events().is_empty(),
        "one that nobody asked for passes"
    );
}

#[test]
//= test MQTT-3.1.2-20
fn a_half_open_link_is_noticed_while_we_publish_steadily() {
    let mut client = Client::connected(config(ProtocolVersion::V5));
    client.events();
    let start = client.now;
    let mut pings = 0;
    let cause = loop {
        client.publish("tick", QoS::AtMostOnce);
        pings += client
            .sent_words()
            .iter()
            .filter(|words| *words == "PINGREQ")
            .count();
        client.pass(secs(1));
        if let Some(Event::Disconnected(disconnected)) = client.events().pop() {
            break disconnected.cause;
        }
    };
    assert_eq!(
        cause,
        DisconnectCause::Error(ConnectionError::Timeout(Timeout::Ping))
    );
    assert_eq!(pings, 1);
    let noticed = client.now.saturating_duration_since(start);
    assert!(noticed <= secs(60 + 10 + 1), "{noticed:?}");
    assert!(client.sent().is_empty(), "nothing is said to the dead");
}

#[test]
fn a_peer_that_takes_no_more_bytes_is_noticed_too() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    client.events();
    client.pass(secs(60));
    // The PINGREQ is due, and the socket is full: nothing is polled.
    assert_eq!(client.session.poll_timeout(), Some(client.now + secs(10)));
    client.pass(secs(9));
    assert!(client.events().is_empty());
    client.pass(secs(1));
    let events = client.events();
    let [Event::Disconnected(disconnected)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        disconnected.cause,
        DisconnectCause::Error(ConnectionError::Timeout(Timeout::Ping))
    );
}

#[test]
fn a_busy_peer_is_not_pinged_needlessly_but_hears_from_us() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    let mut pings = 0;
    for _ in 0..600 {
        client.pass(secs(1));
        client.deliver(QoS::AtMostOnce, 0, "tick");
        let sent = client.sent_words();
        if !sent.is_empty() {
            assert_eq!(sent, ["PINGREQ"]);
            client.receive(PacketRef::Pingresp).unwrap();
            pings += 1;
        }
    }
    assert_eq!(pings, 10);
}

#[test]
//= test MQTT-3.1.2-21
//= test MQTT-3.2.2-21
fn the_servers_keep_alive_wins() {
    let mut client = Client::new(config(ProtocolVersion::V5));
    client.connect_with(false, &[Property::ServerKeepAlive(5)]);
    assert_eq!(client.session.poll_timeout(), Some(client.now + secs(5)));
    let mut client = Client::new(config(ProtocolVersion::V5));
    client.connect_with(false, &[Property::ServerKeepAlive(0)]);
    assert_eq!(client.session.poll_timeout(), None, "zero switches it off");
}

#[test]
fn time_that_stands_still_or_runs_back_does_no_harm() {
    let mut client = Client::connected(config(ProtocolVersion::V311));
    client.pass(secs(60));
    client.session.handle_timeout(mqtt_session::Timestamp::ZERO);
    assert_eq!(client.sent_words(), ["PINGREQ"]);
    client.session.handle_timeout(mqtt_session::Timestamp::ZERO);
    assert!(client.sent().is_empty());
}
