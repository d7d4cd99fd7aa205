//! What is logged at the finest level over a whole session: spans and fields from a closed list, and no secret.
#![cfg(feature = "ws")]
#![allow(missing_docs, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{StoppedClock, client};
use pubsub_core::{ConnectionState as State, PubSub, QoS};
use pubsub_generic::{MqttOptions, MqttProvider, ProtocolVersion, Renewal, Will};
use testkit::mosquitto::find_or_skip;
use testkit::port::Port;
use testkit::proxy::{Cut, Proxy};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps everything.
#[derive(Clone, Default)]
struct Recorder {
    log: Arc<Mutex<Log>>,
    spans: Arc<AtomicU64>,
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    /// Fields of our own crates.
    fields: BTreeSet<String>,
    span_names: BTreeSet<String>,
}

impl Recorder {
    fn take_down(&self, metadata: &Metadata<'_>, visit: impl FnOnce(&mut Line)) {
        let mut line = Line::default();
        visit(&mut line);
        let mut log = self.log.lock().unwrap();
        let ours = ["mqtt_", "pubsub_", "ws_transport"];
        if ours.iter().any(|name| metadata.target().starts_with(name)) {
            log.fields.extend(line.fields);
            if metadata.is_span() {
                log.span_names.insert(metadata.name().to_owned());
            }
        }
        log.lines.push(format!(
            "{} {}: {}",
            metadata.target(),
            metadata.name(),
            line.text
        ));
    }
}

#[derive(Default)]
struct Line {
    text: String,
    fields: Vec<String>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text
            .push_str(&format!("{}={value:?} {value:#?} ", field.name()));
        self.fields.push(field.name().to_owned());
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.take_down(span.metadata(), |line| span.record(line));
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line::default();
        values.record(&mut line);
        self.log.lock().unwrap().lines.push(line.text);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.take_down(event.metadata(), |line| event.record(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

async fn use_everything(pubsub: &PubSub, proxy: &Proxy) {
    let mut messages = pubsub
        .subscribe("marker-topic/+")
        .qos(QoS::AtLeastOnce)
        .await
        .unwrap();
    let mut watch = pubsub.connection("logged").unwrap();
    watch.reached(State::Connected).await.unwrap();
    let _clock = StoppedClock::stop();
    for round in 0..3 {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            pubsub
                .publish("marker-topic/a", "marker-payload")
                .qos(qos)
                .user_property("marker-name", "marker-value")
                .content_type("marker-type")
                .await
                .unwrap();
            messages.next().await.unwrap().unwrap();
        }
        if round == 0 {
            // A loss, and the way back.
            proxy.cut_all(Cut::Reset);
            watch.reached(State::ConnectionDisrupted).await.unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
            watch.reached(State::Connected).await.unwrap();
        }
    }
    // One that is planned.
    while watch.current().state == State::Connected {
        let waiting = pubsub.publish("marker-topic/a/b", "marker-payload");
        waiting.qos(QoS::AtLeastOnce).await.unwrap();
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    watch.reached(State::Connecting).await.unwrap();
    watch.reached(State::Connected).await.unwrap();
    let refused = pubsub.publish("marker-forbidden", "marker-payload");
    refused.qos(QoS::AtLeastOnce).await.unwrap_err();
    messages.unsubscribe().await.unwrap();
    pubsub.close().await.unwrap();
}

#[tokio::test]
async fn the_finest_log_has_fields_from_a_closed_list_and_no_secret() {
    let Some(mosquitto) = find_or_skip() else {
        return;
    };
    let recorder = Recorder::default();
    tracing::subscriber::set_global_default(recorder.clone()).unwrap();
    let broker = mosquitto
        .config()
        .websocket()
        .user("marker-user", "marker-password")
        .acl("user marker-user\ntopic readwrite marker-topic/#\n")
        .start()
        .await
        .unwrap();
    let proxy = Proxy::start(broker.ws_address()).await.unwrap();
    let url = format!("{}?X-Amz-Signature=marker-signature", proxy.ws_url());
    let options = MqttOptions::new(&url)
        .client_id("shown")
        .protocol_version(ProtocolVersion::V5)
        .header("authorization", "marker-header")
        .user_name("marker-user")
        .will(Will::new("marker-topic/will", "marker-payload"))
        .renewal(Renewal::default().max_age(Duration::from_secs(20)));
    let (_pubsub, wrong) = client(options.clone().password("marker-wrong"));
    wrong.connect().await.unwrap_err();
    let nobody = Port::reserve().unwrap();
    let (_pubsub, nowhere) = client(
        MqttOptions::new(format!("ws://{}/?marker=marker", nobody.address()))
            .on_failure(|_, _| pubsub_generic::Retry::Never),
    );
    nowhere.connect().await.unwrap_err();
    let provider = MqttProvider::new(options.password("marker-password")).unwrap();
    let pubsub = PubSub::new();
    pubsub.add_provider("logged", provider).unwrap();
    use_everything(&pubsub, &proxy).await;
    drop(pubsub);

    let log = recorder.log.lock().unwrap();
    let leaks: Vec<&String> = log
        .lines
        .iter()
        .filter(|line| line.contains("marker"))
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    let names: Vec<&str> = log.span_names.iter().map(String::as_str).collect();
    assert_eq!(names, ["connection", "provider"]);
    let fields: Vec<&str> = log.fields.iter().map(String::as_str).collect();
    let closed_list = [
        "attempt",
        "client_id",
        "connection",
        "delay",
        "endpoint",
        "error",
        "gap",
        "host",
        "message",
        "port",
        "provider",
        "session_resumed",
    ];
    let others: Vec<_> = fields
        .iter()
        .filter(|field| !closed_list.contains(field))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    for wanted in ["attempt", "client_id", "connection", "endpoint", "provider"] {
        assert!(
            fields.contains(&wanted),
            "{wanted} is not there: {fields:?}"
        );
    }
    let address = proxy.address().to_string();
    for wanted in [
        "\"connected\"",
        "giving up",
        "not connected",
        "replaced",
        // Why, and not only that.
        "connecting failed: the host could not be reached: ",
        &address,
        "provider=logged",
    ] {
        let found = log
            .lines
            .iter()
            .any(|line| line.contains(wanted.trim_matches('"')));
        assert!(found, "{wanted} in {:#?}", log.lines);
    }
}
