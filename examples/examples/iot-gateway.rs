//! An AWS IoT endpoint on this machine, to develop against without an account.
//!
//! It checks the signature of every WebSocket upgrade as AWS IoT does, says on the terminal what
//! became of it and why (which the service keeps to itself), and relays what it lets in to a broker.
//!
//! ```text
//! cargo run --example iot-gateway -- --help
//! ```

use std::{env, error::Error, path::PathBuf, process::ExitCode, time::Duration};

use testkit::{
    certs::Authority,
    embedded::Broker,
    gateway::{AccessKey, Gateway, GatewayOptions, Outcome, Policy},
};

const HELP: &str = "\
An AWS IoT endpoint on 127.0.0.1: checks signed WebSocket upgrades, relays to a broker.

Usage: cargo run --example iot-gateway -- [OPTIONS]

Options:
  --broker URL      relay to this ws:// broker instead of one in this process
  --region REGION   the region to sign for [default: us-east-1]
  --port PORT       listen on this port [default: any free one]
  --tls FILE        speak TLS, and write the certificate to trust (PEM) to FILE
  --policy FILE     what the credentials may do, as an IoT policy document for account
                    123456789012 [default: everything]
  --clock-ahead N   run the gateway's clock N seconds ahead, to see clock skew corrected
  --help            print this

It prints the endpoint and the credentials to sign with, then a line for each attempt to connect and
for each packet that the service would not let pass, and ends with Ctrl-C.";

const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION_TOKEN: &str = "an/example+session=token";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("{mistake}; try --help");
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let (broker_url, _embedded) = match arguments.broker {
        Some(url) => (url, None),
        None => {
            let broker = Broker::start().await?;
            (broker.url(), Some(broker))
        }
    };
    let mut key = AccessKey::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY).session_token(SESSION_TOKEN);
    if let Some(file) = &arguments.policy {
        let document = tokio::fs::read_to_string(file).await?;
        key = key.policy(Policy::parse(&document)?);
    }
    let mut options = GatewayOptions::new(&broker_url)
        .region(&arguments.region)
        .access_key(key);
    if let Some(file) = &arguments.tls {
        let authority = Authority::new();
        tokio::fs::write(file, authority.pem()).await?;
        options = options.tls(&authority.server());
    }
    let gateway = options.start_on(arguments.port).await?;
    gateway.clock().run_ahead(arguments.clock_ahead);

    println!("endpoint               {}", gateway.url());
    if let Some(file) = &arguments.tls {
        println!("certificate to trust   {}", file.display());
    }
    println!("broker behind it       {broker_url}");
    println!();
    println!("AWS_REGION={}", gateway.region());
    println!("AWS_ACCESS_KEY_ID={ACCESS_KEY_ID}");
    println!("AWS_SECRET_ACCESS_KEY={SECRET_ACCESS_KEY}");
    println!("AWS_SESSION_TOKEN={SESSION_TOKEN}");
    println!();
    println!("Attempts to connect follow; Ctrl-C ends.");
    tokio::select! {
        () = report_attempts(&gateway) => {}
        () = report_incidents(&gateway) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}

async fn report_incidents(gateway: &Gateway) {
    for number in 1.. {
        let incidents = gateway.wait_for_incidents(number).await;
        let Some((client_id, incident)) = nth(&incidents, number) else {
            return;
        };
        println!("   client {client_id:?}: {incident:?}");
    }
}

/// The entry of this number, counted from 1. Several may have come at once; all are still there, up
/// to a bound far above what comes at once.
fn nth<T>(entries: &[T], number: u64) -> Option<&T> {
    entries.get(usize::try_from(number - 1).ok()?)
}

async fn report_attempts(gateway: &Gateway) {
    for number in 1.. {
        let attempts = gateway.wait_for_attempts(number).await;
        let Some(attempt) = nth(&attempts, number) else {
            return;
        };
        let key = attempt.access_key_id.as_deref().unwrap_or("nobody");
        match &attempt.outcome {
            Outcome::Accepted => println!("{number}: {key} is let in"),
            Outcome::Refused(reason) => println!("{number}: {key} is refused with 403: {reason:?}"),
            other => println!("{number}: {key}: {other:?}"),
        }
    }
}

struct Arguments {
    broker: Option<String>,
    region: String,
    port: u16,
    tls: Option<PathBuf>,
    policy: Option<PathBuf>,
    clock_ahead: Duration,
}

impl Arguments {
    /// `None` if help is wanted.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut arguments = Self {
            broker: None,
            region: "us-east-1".to_owned(),
            port: 0,
            tls: None,
            policy: None,
            clock_ahead: Duration::ZERO,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--broker" => arguments.broker = Some(value()?),
                "--region" => arguments.region = value()?,
                "--port" => arguments.port = number(&value()?)?,
                "--tls" => arguments.tls = Some(value()?.into()),
                "--policy" => arguments.policy = Some(value()?.into()),
                "--clock-ahead" => {
                    arguments.clock_ahead = Duration::from_secs(number(&value()?)?);
                }
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("{word} is no option")),
            }
        }
        Ok(Some(arguments))
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|_| format!("{text} is no such number"))
}
