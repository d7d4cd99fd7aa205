//! ntex-mqtt, MQTT 3.1.1, on ntex's WebSocket and tokio.
//!
//! It needs ntex-bytes 1.9: with 1.10 it writes garbage in place of the header of any frame above 125 bytes, as
//! strace shows, and the broker hangs up where it merges packets.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use ntex::connect::{Connect, ConnectError};
use ntex::service::cfg::SharedCfg;
use ntex::time::Seconds;
use ntex::util::{ByteString, Bytes};
use ntex::{ServiceFactory as _, ws};
use ntex_mqtt::v3;
use tokio::sync::Notify;

use crate::Result;
use crate::child::Meter;
use crate::work::{self, FILTER, TOPIC, Verb, Work};

/// How many messages a pipelined publisher sends before others may run.
const BURST: usize = 64;

#[derive(Debug)]
struct Never;

/// Messages that have arrived, and who waits for the next.
#[derive(Default)]
struct Arrived {
    count: Cell<usize>,
    wanted: Cell<usize>,
    notify: Notify,
}

impl Arrived {
    async fn reach(&self, wanted: usize) {
        self.wanted.set(wanted);
        while self.count.get() < wanted {
            self.notify.notified().await;
        }
    }
}

pub async fn run(work: Work, mut meter: Meter) -> Result<()> {
    let payload = Bytes::from(work::payload(work.payload));
    let topic = ByteString::from_static(TOPIC);
    match work.verb {
        Verb::Receive | Verb::ReceiveAck => {
            let (_sink, arrived) = subscribed(&work).await?;
            meter.start(&work);
            arrived.reach(work.count).await;
        }
        Verb::Publish => {
            let (sink, _) = subscribed(&work).await?;
            meter.start(&work);
            for at in 0..work.count {
                let sent = sink
                    .publish(topic.clone())
                    .send_at_most_once(payload.clone());
                sent.map_err(|error| format!("{error:?}"))?;
                if work.window == 1 || at % BURST == BURST - 1 {
                    tokio::task::yield_now().await;
                }
            }
            let last = sink.publish(topic).send_at_least_once(payload).await;
            last.map_err(|error| format!("{error:?}"))?;
        }
        Verb::PublishAck | Verb::PublishExact => {
            let (sink, _) = subscribed(&work).await?;
            meter.start(&work);
            // As many callers as the window is wide, each waiting for its own acknowledgement.
            let exactly_once = work.verb == Verb::PublishExact;
            let left = Rc::new(Cell::new(work.count));
            let callers: Vec<_> = (0..work.window.min(work.count))
                .map(|_| {
                    let (sink, left) = (sink.clone(), Rc::clone(&left));
                    let (topic, payload) = (topic.clone(), payload.clone());
                    ntex::rt::spawn(async move {
                        while left.get() > 0 {
                            left.set(left.get() - 1);
                            let publish = sink.publish(topic.clone());
                            if exactly_once {
                                let received = publish.send_exactly_once(payload.clone()).await;
                                let released = received.expect("the connection stands").release();
                                released.await.expect("the connection stands");
                            } else {
                                let sent = publish.send_at_least_once(payload.clone()).await;
                                sent.expect("the connection stands");
                            }
                        }
                    })
                })
                .collect();
            for caller in callers {
                caller.await.map_err(|error| format!("{error:?}"))?;
            }
        }
        Verb::PingPong | Verb::PingPongInTask => {
            let (sink, arrived) = subscribed(&work).await?;
            meter.start(&work);
            for at in 0..work.count {
                let since = Instant::now();
                let sent = sink
                    .publish(topic.clone())
                    .send_at_most_once(payload.clone());
                sent.map_err(|error| format!("{error:?}"))?;
                arrived.reach(at + 1).await;
                meter.round_trip(since);
            }
        }
        Verb::Connect => {
            meter.start(&work);
            for _ in 0..work.count {
                let (sink, _) = subscribed(&work).await?;
                sink.close();
                while sink.is_open() {
                    tokio::task::yield_now().await;
                }
            }
        }
        Verb::Idle => {
            let mut held = Vec::new();
            meter.start(&work);
            for _ in 0..work.count {
                held.push(subscribed(&work).await?);
            }
            meter.report();
        }
    }
    meter.report()
}

async fn subscribed(work: &Work) -> Result<(v3::MqttSink, Rc<Arrived>)> {
    let mut config = ntex_mqtt::MqttServiceConfig::new().set_max_size(1 << 20);
    if matches!(work.verb, Verb::PublishAck | Verb::PublishExact) {
        config = config.set_max_send(u16::try_from(work.window)?);
    }
    let config: SharedCfg = SharedCfg::new("road").add(config).into();
    let socket = ws::WsClient::builder(work.url.replace("ws://", "http://"))
        .build(SharedCfg::default())
        .await
        .map_err(|error| format!("{error:?}"))?;
    let socket = Rc::new(socket);
    let connector = v3::client::MqttConnector::new().connector(move |_: Connect<String>| {
        let socket = Rc::clone(&socket);
        async move {
            let opened = socket.connect().await;
            let opened =
                opened.map_err(|error| ConnectError::Io(io::Error::other(format!("{error:?}"))))?;
            Ok::<_, ConnectError>(opened.into_transport())
        }
    });
    let connect = v3::client::Connect::new(work.authority().to_owned());
    let pipeline = connector.pipeline(config).await;
    let client = pipeline
        .map_err(|error| format!("{error:?}"))?
        .call(connect.client_id("ntex").keep_alive(Seconds(60)))
        .await
        .map_err(|error| format!("{error:?}"))?;
    let sink = client.sink();
    let arrived = Rc::new(Arrived::default());
    let counted = Rc::clone(&arrived);
    let router = client.resource("devices/{id}/temperature", move |message: v3::Publish| {
        let arrived = Rc::clone(&counted);
        async move {
            message.read_all().await.map_err(|_| Never)?;
            arrived.count.set(arrived.count.get() + 1);
            if arrived.count.get() == arrived.wanted.get() {
                arrived.notify.notify_one();
            }
            Ok::<_, Never>(())
        }
    });
    ntex::rt::spawn(router.start_default());
    let qos = match work.verb {
        Verb::ReceiveAck => v3::QoS::AtLeastOnce,
        _ => v3::QoS::AtMostOnce,
    };
    let subscribe = sink
        .subscribe()
        .topic_filter(ByteString::from_static(FILTER), qos);
    subscribe
        .send()
        .await
        .map_err(|error| format!("{error:?}"))?;
    Ok((sink, arrived))
}
