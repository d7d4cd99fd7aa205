//! rumqttc, MQTT 3.1.1, its event loop polled by the task that uses it.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, Transport};

use crate::Result;
use crate::child::Meter;
use crate::work::{self, FILTER, TOPIC, Verb, Work};

/// How many requests wait for the event loop; its channel takes them in batches.
const REQUESTS: usize = 1000;

pub async fn run(work: Work, mut meter: Meter) -> Result<()> {
    let payload = work::payload(work.payload);
    match work.verb {
        Verb::Receive | Verb::ReceiveAck => {
            let (_client, mut events) = subscribed(&work).await?;
            meter.start(&work);
            let mut left = work.count;
            while left > 0 {
                if let Event::Incoming(Packet::Publish(message)) = events.poll().await? {
                    assert_eq!(message.payload.len(), work.payload);
                    left -= 1;
                }
            }
            // The last acknowledgements.
            while let Some(event) = events.poll().now_or_never() {
                event?;
            }
        }
        Verb::Publish | Verb::PublishAck | Verb::PublishExact => {
            let (client, mut events) = subscribed(&work).await?;
            meter.start(&work);
            let qos = match work.verb {
                Verb::Publish => QoS::AtMostOnce,
                Verb::PublishAck => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            };
            if work.verb == Verb::Publish && work.window == 1 {
                for _ in 0..work.count {
                    client.publish(TOPIC, qos, false, payload.clone()).await?;
                    until(&mut events, |event| {
                        matches!(event, Event::Outgoing(Outgoing::Publish(_)))
                    })
                    .await?;
                }
                meter.report();
            }
            let count = work.count;
            tokio::spawn(async move {
                for _ in 0..count {
                    let sent = client.publish(TOPIC, qos, false, payload.clone()).await;
                    sent.expect("the event loop lives");
                }
                // It stays until the process ends.
                std::future::pending::<()>().await;
            });
            let mut left = work.count;
            while left > 0 {
                match events.poll().await? {
                    Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => left -= 1,
                    Event::Outgoing(Outgoing::Publish(_)) if work.verb == Verb::Publish => {
                        left -= 1
                    }
                    _ => {}
                }
            }
        }
        Verb::PingPong | Verb::PingPongInTask => {
            let (client, mut events) = subscribed(&work).await?;
            meter.start(&work);
            for _ in 0..work.count {
                let since = Instant::now();
                client
                    .publish(TOPIC, QoS::AtMostOnce, false, payload.clone())
                    .await?;
                until(&mut events, |event| {
                    matches!(event, Event::Incoming(Packet::Publish(_)))
                })
                .await?;
                meter.round_trip(since);
            }
        }
        Verb::Connect => {
            meter.start(&work);
            for _ in 0..work.count {
                let (client, mut events) = subscribed(&work).await?;
                client.disconnect().await?;
                until(&mut events, |event| {
                    matches!(event, Event::Outgoing(Outgoing::Disconnect))
                })
                .await?;
            }
        }
        Verb::Idle => {
            let mut held = Vec::new();
            meter.start(&work);
            for _ in 0..work.count {
                let (client, mut events) = subscribed(&work).await?;
                held.push(client);
                tokio::spawn(async move { while events.poll().await.is_ok() {} });
            }
            tokio::task::yield_now().await;
            meter.report();
        }
    }
    meter.report()
}

async fn subscribed(work: &Work) -> Result<(AsyncClient, EventLoop)> {
    let mut options = MqttOptions::new("rumqttc", &work.url, 0);
    options.set_transport(Transport::Ws);
    options.set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(1 << 20, 1 << 20);
    if matches!(work.verb, Verb::PublishAck | Verb::PublishExact) {
        options.set_inflight(u16::try_from(work.window)?);
    }
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    let qos = match work.verb {
        Verb::ReceiveAck => QoS::AtLeastOnce,
        _ => QoS::AtMostOnce,
    };
    client.subscribe(FILTER, qos).await?;
    until(&mut events, |event| {
        matches!(event, Event::Incoming(Packet::SubAck(_)))
    })
    .await?;
    Ok((client, events))
}

async fn until(events: &mut EventLoop, wanted: fn(&Event) -> bool) -> Result<()> {
    while !wanted(&events.poll().await?) {}
    Ok(())
}
