//! The reference broker, started and taken away in each way that the tests of other crates use.

use std::time::{Duration, Instant};

use testkit::{
    certs::Authority,
    mosquitto::{PROGRAM_VARIABLE, REQUIRE_VARIABLE, StartError, find_or_skip},
    probe::{Probe, ProbeError, ProbeOptions},
};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_message_travels_over_websocket() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    let mut listener = Probe::connect(&broker.ws_url(), "listener").await.unwrap();
    listener.subscribe("chat/+").await.unwrap();
    let mut speaker = Probe::connect(&broker.ws_url(), "speaker").await.unwrap();
    speaker.publish_acknowledged("chat/a", b"hi").await.unwrap();
    let (topic, payload) = listener.message().await.unwrap();
    assert_eq!((topic.as_str(), &payload[..]), ("chat/a", &b"hi"[..]));
    assert!(broker.log().contains("listener"), "{}", broker.log());
}

#[tokio::test]
async fn tls_with_and_without_client_certificates() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let authority = Authority::new();
    let config = mosquitto.config();
    let broker = config.clone().secure_websocket(&authority);
    let broker = broker.start().await.unwrap();
    let options = ProbeOptions::new(&broker.wss_url(), "a").trust(&authority);
    options.connect().await.unwrap();
    let stranger = ProbeOptions::new(&broker.wss_url(), "a").trust(&Authority::new());
    assert!(matches!(stranger.connect().await, Err(ProbeError::Io(_))));

    let broker = config.mutual_secure_websocket(&authority);
    let broker = broker.start().await.unwrap();
    let options = ProbeOptions::new(&broker.wss_url(), "a").trust(&authority);
    let with = options.clone().identity(&authority.client("thing"));
    with.connect().await.unwrap();
    options.connect().await.unwrap_err();
}

#[tokio::test]
async fn users_and_access_control() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let config = mosquitto
        .config()
        .websocket()
        .user("alice", "open sesame")
        .acl("user alice\ntopic readwrite mine/#\n");
    assert!(!format!("{config:?}").contains("sesame"));
    let broker = config.start().await.unwrap();
    let anybody = Probe::connect(&broker.ws_url(), "a").await.unwrap_err();
    // CONNACK with return code 5, not authorized.
    assert!(
        matches!(&anybody, ProbeError::Unexpected(packet) if packet[..] == [0x20, 2, 0, 5]),
        "{anybody}"
    );
    let alice = ProbeOptions::new(&broker.ws_url(), "a").user("alice", "open sesame");
    assert!(!format!("{alice:?}").contains("sesame"));
    let mut alice = alice.connect().await.unwrap();
    alice.subscribe("#").await.unwrap();
    alice.publish_acknowledged("other", b"1").await.unwrap();
    alice.publish("mine/x", b"2").await.unwrap();
    // The first was swallowed by the broker.
    let (topic, payload) = alice.message().await.unwrap();
    assert_eq!((topic.as_str(), &payload[..]), ("mine/x", &b"2"[..]));
}

#[tokio::test]
async fn it_comes_back_on_the_same_port_after_stop_kill_and_restart() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let config = mosquitto.config().websocket();
    let mut broker = config.start().await.unwrap();
    let url = broker.ws_url();
    let mut probe = Probe::connect(&url, "a").await.unwrap();
    broker.stop().await.unwrap();
    probe.closed().await.unwrap();
    TcpStream::connect(broker.tcp_address()).await.unwrap_err();
    broker.start().await.unwrap();

    let mut probe = Probe::connect(&url, "a").await.unwrap();
    broker.kill();
    probe.closed().await.unwrap();
    TcpStream::connect(broker.tcp_address()).await.unwrap_err();
    broker.start().await.unwrap();

    let mut probe = Probe::connect(&url, "a").await.unwrap();
    broker.restart().await.unwrap();
    probe.closed().await.unwrap();
    Probe::connect(&url, "a").await.unwrap();
    assert_eq!(broker.ws_url(), url);
}

#[tokio::test]
async fn a_persistent_broker_keeps_retained_messages_over_a_restart() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    for persistent in [false, true] {
        let mut config = mosquitto.config().websocket();
        if persistent {
            config = config.persistent();
        }
        let mut broker = config.start().await.unwrap();
        let mut probe = Probe::connect(&broker.ws_url(), "a").await.unwrap();
        // PUBLISH, QoS 1, retained, packet identifier 7.
        let publish: &[u8] = &[0x33, 8, 0, 1, b'r', 0, 7, b'o', b'l', b'd'];
        probe.send(publish).await.unwrap();
        probe.expect(&[0x40, 2, 0, 7]).await.unwrap();
        broker.restart().await.unwrap();
        let mut probe = Probe::connect(&broker.ws_url(), "a").await.unwrap();
        probe.subscribe("r").await.unwrap();
        probe.publish("r", b"new").await.unwrap();
        let (_, first) = probe.message().await.unwrap();
        let expected: &[u8] = if persistent { b"old" } else { b"new" };
        assert_eq!(first, expected, "persistent: {persistent}");
    }
}

#[tokio::test]
async fn a_paused_broker_accepts_and_says_nothing_until_it_is_resumed() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().websocket().start().await.unwrap();
    let mut probe = Probe::connect(&broker.ws_url(), "a").await.unwrap();
    broker.pause().unwrap();
    TcpStream::connect(broker.ws_address()).await.unwrap();
    probe.send(&[0xc0_u8, 0][..]).await.unwrap();
    // That nothing comes can only be seen by waiting; resumed, it comes at once.
    let silence = tokio::time::timeout(Duration::from_millis(100), probe.packet()).await;
    assert!(silence.is_err());
    broker.resume().unwrap();
    probe.expect(&[0xd0, 0]).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_refuses_its_configuration_fails_with_its_own_words() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let begin = Instant::now();
    let config = mosquitto.config().websocket().line("no_such_option 1");
    let error = config.start().await.unwrap_err();
    assert!(matches!(error, StartError::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains("no_such_option"), "{error}");
    assert!(
        begin.elapsed() < testkit::mosquitto::START_TIMEOUT,
        "not waited for"
    );
}

#[tokio::test]
async fn a_dropped_broker_leaves_neither_process_nor_directory() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let broker = mosquitto.config().start().await.unwrap();
    let (address, directory) = (broker.tcp_address(), broker.directory().to_owned());
    assert!(directory.is_dir());
    drop(broker);
    assert!(!directory.exists());
    TcpStream::connect(address).await.unwrap_err();
}

#[tokio::test]
async fn listeners_are_on_loopback_only() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let config = mosquitto.config().websocket();
    let broker = config.start().await.unwrap();
    // 127.0.0.2 is loopback too, and another address: who binds all interfaces answers there.
    for address in [broker.ws_address(), broker.tcp_address()] {
        let other = (std::net::Ipv4Addr::new(127, 0, 0, 2), address.port());
        TcpStream::connect(other).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_port_that_somebody_else_took_meanwhile_is_an_error_that_names_it() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let mut broker = mosquitto.config().websocket().start().await.unwrap();
    broker.kill();
    let address = broker.ws_address();
    let thief = tokio::net::TcpListener::bind(address).await.unwrap();
    let error = broker.start().await.unwrap_err();
    assert!(error.to_string().contains(&address.port().to_string()));
    drop(thief);
    broker.start().await.unwrap();
}

/// The one rule for all tests of the workspace, tried on a test of this file in a process of its own.
#[test]
fn without_a_broker_a_test_is_left_out_loudly_or_fails() {
    let run = |require: &str| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_message_travels_over_websocket"])
            .env(PROGRAM_VARIABLE, "/nonexistent/mosquitto")
            .env(REQUIRE_VARIABLE, require)
            .output()
            .unwrap()
    };
    let left_out = run("0");
    let said = String::from_utf8_lossy(&left_out.stderr);
    assert!(left_out.status.success(), "{said}");
    assert!(
        said.contains("SKIPPED: a_message_travels_over_websocket needs mosquitto")
            && said.contains("apt-get install mosquitto"),
        "{said}"
    );
    let failed = run("1");
    let said = String::from_utf8_lossy(&failed.stdout);
    assert!(!failed.status.success());
    assert!(said.contains("forbids to leave it out"), "{said}");
}
