//! A chat room on a terminal: `cargo run --example chat -- NAME [URL]`.

use std::error::Error;
use std::io::BufRead as _;

use pubsub_core::{ConnectionState, Json, PubSub, QoS, WithCauses};
use pubsub_generic::{DEFAULT_NAME, MqttOptions, MqttProvider, Will};
use serde::{Deserialize, Serialize};

const HELP: &str = "\
A chat room on a terminal.

    cargo run --example chat -- NAME        starts a broker, and says where it is
    cargo run --example chat -- NAME URL    joins the others there

Every line that you type is said to the room. End with Ctrl-D.";

#[derive(Serialize, Deserialize)]
struct Line {
    from: String,
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next().filter(|name| !name.starts_with('-')) else {
        println!("{HELP}");
        return Ok(());
    };
    // Kept to the end: the broker goes with it.
    let mut broker = None;
    let url = match arguments.next() {
        Some(url) => url,
        None => {
            let url = broker
                .insert(testkit::embedded::Broker::start().await?)
                .url();
            println!("The room is at {url}");
            url
        }
    };

    // When this program vanishes, the broker says so in its place.
    let gone = Line {
        from: name.clone(),
        text: "(is gone)".to_owned(),
    };
    let will = Will::new("chat/lobby", serde_json::to_vec(&gone)?);
    let pubsub = PubSub::new();
    pubsub.add_provider(
        DEFAULT_NAME,
        MqttProvider::new(MqttOptions::new(url).will(will))?,
    )?;

    let mut lines = pubsub
        .subscribe("chat/+")
        .qos(QoS::AtLeastOnce)
        .await?
        .json::<Line>();
    let mut connection = pubsub.connection(DEFAULT_NAME)?;
    let listening = tokio::spawn(async move {
        loop {
            tokio::select! {
                line = lines.next() => match line {
                    Some(Ok(line)) => println!("  {}: {}", line.value.from, line.value.text),
                    Some(Err(error)) => println!("  ({})", WithCauses::new(&error)),
                    None => return,
                },
                status = connection.changed() => match status {
                    Some(status) if status.state != ConnectionState::Connected => println!("  ({status})"),
                    Some(_) => println!("  (connected)"),
                    None => return,
                },
            }
        }
    });

    // Reading a terminal blocks, so it has a thread of its own.
    let speaker = pubsub.clone();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        for text in std::io::stdin().lock().lines().map_while(Result::ok) {
            let line = Line {
                from: name.clone(),
                text,
            };
            let said = speaker
                .publish("chat/lobby", Json(&line))
                .qos(QoS::AtLeastOnce)
                .send();
            if let Err(error) = runtime.block_on(said) {
                println!("  ({})", WithCauses::new(&error));
            }
        }
    })
    .await?;

    pubsub.close().await?;
    listening.await?;
    drop(broker);
    Ok(())
}
