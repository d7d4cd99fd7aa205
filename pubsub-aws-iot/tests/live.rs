//! The live check, against a gateway on this machine: that it finds out what is so there.
#![cfg(all(
    feature = "cognito",
    feature = "control-plane",
    feature = "https-publish"
))]
#![allow(missing_docs, reason = "tests")]

mod common;
mod moto;

#[path = "../examples/live/checks.rs"]
mod checks;
#[path = "../examples/live/raw.rs"]
mod raw;
#[path = "../examples/live/settings.rs"]
mod settings;

use checks::{Finding, Outcome, describe_endpoint, walk};
use common::{KEY, REGION, SECRET, TOKEN, access_key, gateway_to};
use moto::Moto;
use settings::Settings;
use testkit::certs::Authority;
use testkit::gateway::{ACCOUNT, Policy};

fn settings(variables: &[(&str, &str)]) -> Result<Settings, String> {
    Settings::from(|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn what_is_missing_is_named() {
    let keys = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    for (given, missing) in [
        (&[][..], "AWS_ACCESS_KEY_ID is not set"),
        (&keys[..1], "AWS_SECRET_ACCESS_KEY is not set"),
        (
            &keys[..],
            "neither PUBSUB_LIVE_ENDPOINT nor AWS_REGION is set",
        ),
    ] {
        assert_eq!(settings(given).err().as_deref(), Some(missing));
    }
    for name in missing_names() {
        assert!(settings::NEEDS.contains(&name), "{name}");
    }
}

/// Every variable that is asked for.
fn missing_names() -> Vec<String> {
    let asked = std::cell::RefCell::new(Vec::new());
    let all = Settings::from(|name| {
        asked.borrow_mut().push(name.to_owned());
        (!name.ends_with("ROOTS") && !name.ends_with("SECS")).then(|| "x".to_owned())
    });
    assert!(all.is_ok());
    asked.into_inner()
}

#[tokio::test]
async fn it_finds_out_what_a_gateway_does() {
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[
            {{"Effect":"Allow","Action":"iot:*","Resource":"*"}},
            {{"Effect":"Deny","Action":"iot:*","Resource":["arn:aws:iot:{REGION}:{ACCOUNT}:topic/secret",
                "arn:aws:iot:{REGION}:{ACCOUNT}:topicfilter/secret"]}}]}}"#
    );
    let broker = testkit::embedded::Broker::start().await.unwrap();
    let authority = Authority::new();
    let gateway = gateway_to(&broker.url())
        .access_key(access_key().policy(Policy::parse(&policy).unwrap()))
        .tls(&authority.server())
        .start()
        .await
        .unwrap();
    let roots = std::env::temp_dir().join(format!("pubsub-live-{}.pem", std::process::id()));
    std::fs::write(&roots, authority.pem()).unwrap();
    let url = gateway.url();
    let mut variables = vec![
        ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ("AWS_SESSION_TOKEN", TOKEN.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("PUBSUB_LIVE_ENDPOINT", url.clone()),
        ("PUBSUB_LIVE_DENIED_TOPIC", "secret".to_owned()),
        ("PUBSUB_LIVE_ROOTS", roots.display().to_string()),
        ("PUBSUB_LIVE_WATCH_SECS", "1".to_owned()),
    ];
    let moto = Moto::start_or_skip().await;
    if let Some(moto) = &moto {
        variables.push(("PUBSUB_LIVE_IDENTITY_POOL", moto.identity_pool().await));
        variables.push(("PUBSUB_LIVE_COGNITO_URL", moto.url()));
        let https = format!("ws://{}", moto.address);
        variables.push(("PUBSUB_LIVE_HTTPS_ENDPOINT", https));
    }
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let findings = walk(&settings(&variables).unwrap(), |_| {}).await;
    std::fs::remove_file(&roots).unwrap();

    let all = findings.iter().map(told).collect::<Vec<_>>().join("\n");
    assert!(!all.contains("marker"), "{all}");
    let found = |question: &str| {
        let finding = findings
            .iter()
            .find(|finding| finding.question.contains(question));
        told(finding.unwrap_or_else(|| panic!("{question} in {all}")))
    };
    assert_eq!(found("where"), format!("{url}, in {REGION}"));
    assert!(found("over MQTT 5").starts_with("\"21.5\" in "), "{all}");
    assert!(
        found("over MQTT 3.1.1").starts_with("\"21.5\" in "),
        "{all}"
    );
    // The gateway's five minutes.
    for line in ["-330: 403", "-270: 101", "+270: 101", "+330: 403"] {
        assert!(found("skew").contains(line), "{all}");
    }
    assert_eq!(
        found("X-Amz-Expires"),
        "of 30 s, after 60 s: 403\nof 90 s, after 60 s: 101\nof 3600 s, after 420 s: 403"
    );
    assert!(found("carry").contains("ForbiddenException"), "{all}");
    assert!(found("carry").contains("x-amzn-requestid"), "{all}");
    for version in ["under MQTT 5", "under MQTT 3.1.1"] {
        let told = found(version);
        assert!(
            told.contains("publish: ") && told.contains("subscribe: "),
            "{all}"
        );
        assert!(!told.contains("no answer"), "{all}");
    }
    assert!(
        found("come once").ends_with(" times, for two filters"),
        "{all}"
    );
    assert!(found("how many").starts_with("50; the next one: "), "{all}");
    assert!(found("outlive").contains("at the end: "), "{all}");
    if moto.is_some() {
        assert_eq!(found("iotdata"), "yes");
        // moto gives everybody the same keys, which the gateway does not know.
        assert!(
            found("identity pool").contains("; not connected: "),
            "{all}"
        );
    }
}

#[tokio::test]
async fn without_an_endpoint_the_control_plane_is_asked() {
    let Some(moto) = Moto::start_or_skip().await else {
        return;
    };
    let url = moto.url();
    let settings = settings(&[
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", "marker"),
        ("AWS_REGION", "euwest1"),
        ("PUBSUB_LIVE_CONTROL_URL", &url),
    ]);
    let mut settings = settings.unwrap();
    let findings = walk(&settings, |_| {}).await;
    assert_eq!(findings.len(), 1);
    assert!(told(&findings[0]).starts_with("FAILED: the region is not one"));
    settings.region = Some(REGION.to_owned());
    let described = describe_endpoint(&settings, &ws_transport::Connector::new()).await;
    let endpoint = described.unwrap();
    assert!(
        endpoint.ends_with(".iot.eu-west-1.amazonaws.com"),
        "{endpoint}"
    );
}

fn told(finding: &Finding) -> String {
    match &finding.outcome {
        Outcome::Found(found) => found.clone(),
        Outcome::LeftOut(why) => format!("left out: {why}"),
        Outcome::Failed(why) => format!("FAILED: {why}"),
    }
}
