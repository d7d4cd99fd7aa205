//! The least policy that lets a program do what it does.

use std::fmt;

use pubsub_core::{TopicFilter, TopicName};
use serde_json::{Value, json};

/// Writes the IAM or IoT policy that allows what it is told, and nothing else.
///
/// With too small a policy the service hangs up, mostly without a word, so it is better made from what the program uses.
///
/// ```
/// use pubsub_aws_iot::core::{TopicFilter, TopicName};
/// use pubsub_aws_iot::LeastPolicy;
///
/// let policy = LeastPolicy::new("arn:aws:iot:eu-west-1:123456789012")
///     .connect("kitchen")
///     .publish(&TopicName::new("rooms/kitchen")?)
///     .subscribe(&TopicFilter::new("rooms/+")?);
/// println!("{policy}");
/// # assert!(policy.to_string().contains("topicfilter/rooms/+"));
/// # assert!(policy.to_string().contains("topic/rooms/*"));
/// # Ok::<(), pubsub_aws_iot::core::TopicError>(())
/// ```
///
/// A policy's `*` crosses levels, so what may be *received* is a little more than what `+` matches; what may be subscribed
/// to is the filter to the letter. An IoT policy has at most 2,048 characters: use wildcards where it grows beyond.
#[derive(Debug, Clone)]
pub struct LeastPolicy {
    arn: String,
    connect: Vec<String>,
    connect_with: Vec<(String, Vec<ConnectAttribute>)>,
    publish: Vec<String>,
    retain: Vec<String>,
    subscribe: Vec<String>,
    receive: Vec<String>,
}

impl LeastPolicy {
    /// A policy for the resources that begin with this: `arn:PARTITION:iot:REGION:ACCOUNT`.
    #[must_use]
    pub fn new(arn: impl Into<String>) -> Self {
        Self {
            arn: arn.into(),
            connect: Vec::new(),
            connect_with: Vec::new(),
            publish: Vec::new(),
            retain: Vec::new(),
            subscribe: Vec::new(),
            receive: Vec::new(),
        }
    }

    /// Allows connecting with this client identifier. Policy variables are kept as they are, as in
    /// `${cognito-identity.amazonaws.com:sub}`.
    #[must_use]
    pub fn connect(mut self, client_id: impl Into<String>) -> Self {
        add(&mut self.connect, client_id.into());
        self
    }

    /// Allows connecting with this client identifier, and with a session that is kept or a will: the service refuses both
    /// where the policy does not name them.
    #[must_use]
    pub fn connect_with(
        mut self,
        client_id: impl Into<String>,
        attributes: impl IntoIterator<Item = ConnectAttribute>,
    ) -> Self {
        let attributes = attributes.into_iter().collect();
        self.connect_with.push((client_id.into(), attributes));
        self
    }

    /// Allows publishing to this topic. A will needs that too.
    ///
    /// Topics of shadows, of jobs and of Basic Ingest (`$aws/rules/RULE/…`) are topics like others.
    #[must_use]
    pub fn publish(mut self, topic: &TopicName) -> Self {
        add(&mut self.publish, literal(topic.as_str()));
        self
    }

    /// Allows publishing retained messages to this topic, and others.
    #[must_use]
    pub fn publish_retained(mut self, topic: &TopicName) -> Self {
        add(&mut self.retain, literal(topic.as_str()));
        self.publish(topic)
    }

    /// Allows subscribing to this filter, and receiving what it matches.
    #[must_use]
    pub fn subscribe(mut self, filter: &TopicFilter) -> Self {
        add(&mut self.subscribe, literal(filter.as_str()));
        // What is received has the topic's own name, with nothing of a shared group.
        let received: Vec<String> = filter
            .levels()
            .map(|level| match level {
                "+" | "#" => "*".to_owned(),
                level => literal(level),
            })
            .collect();
        add(&mut self.receive, received.join("/"));
        self
    }

    /// The policy document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let arns = |kind: &str, names: &[String]| -> Vec<String> {
            let arn = |name: &String| format!("{}:{kind}/{name}", self.arn);
            names.iter().map(arn).collect()
        };
        let mut statements: Vec<Value> = [
            ("iot:Connect", "client", &self.connect),
            ("iot:Publish", "topic", &self.publish),
            ("iot:RetainPublish", "topic", &self.retain),
            ("iot:Subscribe", "topicfilter", &self.subscribe),
            ("iot:Receive", "topic", &self.receive),
        ]
        .into_iter()
        .filter(|(.., names)| !names.is_empty())
        .map(|(action, kind, names)| {
            json!({ "Effect": "Allow", "Action": action, "Resource": arns(kind, names) })
        })
        .collect();
        for (client_id, attributes) in &self.connect_with {
            let attributes: Vec<&str> = attributes.iter().map(|a| a.as_str()).collect();
            statements.push(json!({
                "Effect": "Allow",
                "Action": "iot:Connect",
                "Resource": arns("client", std::slice::from_ref(client_id)),
                "Condition": { "ForAllValues:StringEquals": { "iot:ConnectAttributes": attributes } },
            }));
        }
        json!({ "Version": "2012-10-17", "Statement": statements })
    }
}

impl fmt::Display for LeastPolicy {
    /// The document as JSON, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_json().fmt(f)
    }
}

/// What a policy has to name for a connection to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectAttribute {
    /// A session that the service keeps ([`SessionMode`](crate::SessionMode) other than clean).
    PersistentConnect,
    /// A [`Will`](crate::Will). Its topic has to be allowed to be published to besides.
    LastWill,
}

impl ConnectAttribute {
    fn as_str(self) -> &'static str {
        match self {
            Self::PersistentConnect => "PersistentConnect",
            Self::LastWill => "LastWill",
        }
    }
}

fn add(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}

/// A name of which nothing is a wildcard or a variable of the policy.
fn literal(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' => out.push_str("${*}"),
            '?' => out.push_str("${?}"),
            '$' if rest.peek() == Some(&'{') => out.push_str("${$}"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_literal_and_filters_become_patterns() {
        let policy = LeastPolicy::new("arn:aws:iot:eu-west-1:1")
            .connect("${cognito-identity.amazonaws.com:sub}")
            .connect_with("k", [ConnectAttribute::LastWill])
            .publish(&TopicName::new("a/*/${b}").unwrap())
            .publish_retained(&TopicName::new("$aws/rules/r?").unwrap())
            .subscribe(&TopicFilter::new("$share/g/a/+/b/#").unwrap())
            .subscribe(&TopicFilter::new("$share/g/a/+/b/#").unwrap());
        let allow = |action: &str, resources: &[&str]| {
            let resources: Vec<String> = resources
                .iter()
                .map(|resource| format!("arn:aws:iot:eu-west-1:1:{resource}"))
                .collect();
            json!({ "Effect": "Allow", "Action": action, "Resource": resources })
        };
        assert_eq!(
            policy.to_json(),
            json!({
                "Version": "2012-10-17",
                "Statement": [
                    allow("iot:Connect", &["client/${cognito-identity.amazonaws.com:sub}"]),
                    allow("iot:Publish", &["topic/a/${*}/${$}{b}", "topic/$aws/rules/r${?}"]),
                    allow("iot:RetainPublish", &["topic/$aws/rules/r${?}"]),
                    allow("iot:Subscribe", &["topicfilter/$share/g/a/+/b/#"]),
                    allow("iot:Receive", &["topic/a/*/b/*"]),
                    {
                        "Effect": "Allow",
                        "Action": "iot:Connect",
                        "Resource": ["arn:aws:iot:eu-west-1:1:client/k"],
                        "Condition": {
                            "ForAllValues:StringEquals": { "iot:ConnectAttributes": ["LastWill"] },
                        },
                    },
                ],
            })
        );
    }
}
