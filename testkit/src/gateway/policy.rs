//! Policy documents, as far as the device gateway evaluates them.

use std::fmt;

use serde_json::Value;

/// The account in every ARN here.
pub const ACCOUNT: &str = "123456789012";

/// The longest document, in characters, as the service has it.
pub const MAX_POLICY_LENGTH: usize = 2048;

/// Who may do what: a parsed policy document.
///
/// Understood are `Effect`, `Action` and `Resource` with `*` and `?`, and the variables
/// `iot:ClientId`, `aws:SourceIp` and `cognito-identity.amazonaws.com:sub`, and the condition
/// `ForAllValues:StringEquals` on `iot:ConnectAttributes`. A document with anything else is refused
/// instead of being read in part.
#[derive(Clone, Debug)]
pub struct Policy(Vec<Statement>);

#[derive(Clone, Debug)]
struct Statement {
    effect: Effect,
    actions: Vec<Pattern>,
    resources: Vec<Pattern>,
    /// What a CONNECT may ask for, if the statement says so.
    connect_attributes: Option<Vec<String>>,
}

/// What a CONNECT asks for when its session is to outlive the connection.
pub(super) const PERSISTENT_CONNECT: &str = "PersistentConnect";
/// What a CONNECT with a will asks for.
pub(super) const LAST_WILL: &str = "LastWill";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// To connect with a client identifier.
    Connect,
    /// To publish to a topic.
    Publish,
    /// To publish a retained message to a topic; needed besides [`Publish`](Self::Publish).
    RetainPublish,
    /// To be sent a message of a topic.
    Receive,
    /// To subscribe to a filter.
    Subscribe,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "iot:connect",
            Self::Publish => "iot:publish",
            Self::RetainPublish => "iot:retainpublish",
            Self::Receive => "iot:receive",
            Self::Subscribe => "iot:subscribe",
        }
    }

    fn resource_type(self) -> &'static str {
        match self {
            Self::Connect => "client",
            Self::Publish | Self::RetainPublish | Self::Receive => "topic",
            Self::Subscribe => "topicfilter",
        }
    }
}

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// It is longer than [`MAX_POLICY_LENGTH`].
    TooLong,
    /// It is not JSON.
    NotJson,
    /// This part is missing, or not what it must be.
    Malformed(&'static str),
    /// This part is not understood here.
    Unsupported(String),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the policy is over {MAX_POLICY_LENGTH} characters"),
            Self::NotJson => f.write_str("the policy is not JSON"),
            Self::Malformed(part) => write!(f, "{part} of the policy is missing or malformed"),
            Self::Unsupported(part) => write!(f, "{part} in the policy is not understood here"),
        }
    }
}

impl std::error::Error for PolicyError {}

/// The values of a policy's variables.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    pub(super) client_id: String,
    pub(super) source_ip: String,
    pub(super) identity_id: Option<String>,
    /// What the CONNECT asks for.
    pub(super) connect_attributes: Vec<&'static str>,
}

impl Policy {
    /// Reads a policy document.
    ///
    /// # Errors
    ///
    /// When it is too long or malformed, or has a part that is not understood here.
    pub fn parse(document: &str) -> Result<Self, PolicyError> {
        // The service does not count white space.
        let length = document.chars().filter(|c| !c.is_whitespace()).count();
        if length > MAX_POLICY_LENGTH {
            return Err(PolicyError::TooLong);
        }
        let document: Value = serde_json::from_str(document).map_err(|_| PolicyError::NotJson)?;
        only(&document, &["Version", "Id", "Statement"])?;
        if document["Version"] != "2012-10-17" {
            return Err(PolicyError::Malformed("Version"));
        }
        let statements = match &document["Statement"] {
            Value::Array(statements) => statements.iter().map(Statement::parse).collect(),
            statement @ Value::Object(_) => Statement::parse(statement).map(|s| vec![s]),
            _ => Err(PolicyError::Malformed("Statement")),
        };
        statements.map(Self)
    }

    /// Whether an operation is allowed: some statement allows it, and none denies it.
    pub(super) fn allows(
        &self,
        action: Action,
        region: &str,
        name: &str,
        variables: &Variables,
    ) -> bool {
        let partition = match region {
            r if r.starts_with("cn-") => "aws-cn",
            r if r.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        let kind = action.resource_type();
        let resource = format!("arn:{partition}:iot:{region}:{ACCOUNT}:{kind}/{name}");
        let mut allowed = false;
        for statement in &self.0 {
            let fits = |patterns: &[Pattern], text: &str| {
                patterns.iter().any(|p| p.matches(text, variables))
            };
            let attributes = &variables.connect_attributes;
            let meets_condition = action != Action::Connect
                || statement.connect_attributes.as_ref().is_none_or(|listed| {
                    attributes
                        .iter()
                        .all(|attribute| listed.iter().any(|l| l == attribute))
                });
            if meets_condition
                && fits(&statement.actions, action.name())
                && fits(&statement.resources, &resource)
            {
                match statement.effect {
                    Effect::Deny => return false,
                    Effect::Allow => allowed = true,
                }
            }
        }
        allowed
    }
}

impl Statement {
    fn parse(statement: &Value) -> Result<Self, PolicyError> {
        only(
            statement,
            &["Sid", "Effect", "Action", "Resource", "Condition"],
        )?;
        let effect = match statement["Effect"].as_str() {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err(PolicyError::Malformed("Effect")),
        };
        let actions = texts(&statement["Action"]).ok_or(PolicyError::Malformed("Action"))?;
        let resources = texts(&statement["Resource"]).ok_or(PolicyError::Malformed("Resource"))?;
        let connect_attributes = match &statement["Condition"] {
            Value::Null => None,
            condition => Some(connect_attributes(condition)?),
        };
        Ok(Self {
            effect,
            connect_attributes,
            actions: actions
                .iter()
                .map(|action| Pattern::parse(&action.to_lowercase()))
                .collect::<Result<_, _>>()?,
            resources: resources
                .iter()
                .map(|resource| Pattern::parse(resource))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The one condition that is understood.
fn connect_attributes(condition: &Value) -> Result<Vec<String>, PolicyError> {
    let other = |_| PolicyError::Unsupported("Condition".to_owned());
    only(condition, &["ForAllValues:StringEquals"]).map_err(other)?;
    let keys = &condition["ForAllValues:StringEquals"];
    only(keys, &["iot:ConnectAttributes"]).map_err(other)?;
    let listed = texts(&keys["iot:ConnectAttributes"]);
    let listed = listed.ok_or(PolicyError::Malformed("Condition"))?;
    Ok(listed.into_iter().map(str::to_owned).collect())
}

fn only(object: &Value, keys: &[&str]) -> Result<(), PolicyError> {
    let object = object
        .as_object()
        .ok_or(PolicyError::Malformed("an object"))?;
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(PolicyError::Unsupported(key.clone())),
    }
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// A text with `*` (any characters, `/` too), `?` (one character) and variables.
#[derive(Clone, Debug)]
struct Pattern(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Any,
    ClientId,
    SourceIp,
    IdentityId,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let Some(variable) = rest.strip_prefix("${") {
                let end = variable.find('}');
                let end = end.ok_or(PolicyError::Malformed("a variable"))?;
                tokens.push(match &variable[..end] {
                    "*" => Token::Char('*'),
                    "?" => Token::Char('?'),
                    "$" => Token::Char('$'),
                    "iot:ClientId" => Token::ClientId,
                    "aws:SourceIp" => Token::SourceIp,
                    "cognito-identity.amazonaws.com:sub" => Token::IdentityId,
                    other => return Err(PolicyError::Unsupported(other.to_owned())),
                });
                rest = &variable[end + 1..];
                continue;
            }
            tokens.push(match next {
                '*' => Token::Any,
                '?' => Token::One,
                other => Token::Char(other),
            });
            rest = &rest[next.len_utf8()..];
        }
        Ok(Self(tokens))
    }

    fn matches(&self, text: &str, variables: &Variables) -> bool {
        // What stands for a variable is literal, also where it has a `*`.
        let mut tokens = Vec::with_capacity(self.0.len());
        for token in &self.0 {
            let value = match token {
                Token::ClientId => &variables.client_id,
                Token::SourceIp => &variables.source_ip,
                Token::IdentityId => match &variables.identity_id {
                    Some(identity) => identity,
                    // A statement about somebody nobody is fits nobody.
                    None => return false,
                },
                plain => {
                    tokens.push(*plain);
                    continue;
                }
            };
            tokens.extend(value.chars().map(Token::Char));
        }
        let text: Vec<char> = text.chars().collect();
        fits(&tokens, &text)
    }
}

/// Matches with one step back to the last `*`, so in at most pattern times text steps.
fn fits(pattern: &[Token], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_any = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::Any) => {
                last_any = Some((p, t));
                p += 1;
            }
            Some(Token::One) => {
                p += 1;
                t += 1;
            }
            Some(Token::Char(c)) if *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match last_any {
                Some((any, from)) => {
                    last_any = Some((any, from + 1));
                    p = any + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|token| *token == Token::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(policy: &Policy, action: Action, name: &str) -> bool {
        let variables = Variables {
            client_id: "thing-1".to_owned(),
            source_ip: "127.0.0.1".to_owned(),
            ..Variables::default()
        };
        policy.allows(action, "eu-west-1", name, &variables)
    }

    fn one(effect: &str, action: &str, resource: &str) -> String {
        format!(r#"{{"Effect":"{effect}","Action":"{action}","Resource":"{resource}"}}"#)
    }

    fn policy(statements: &[String]) -> Policy {
        let statements = statements.join(",");
        let document = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
        Policy::parse(&document).unwrap()
    }

    const ARN: &str = "arn:aws:iot:eu-west-1:123456789012";

    #[test]
    fn a_condition_limits_what_a_connect_may_ask_for() {
        let will_only = policy(&[format!(
            r#"{{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":
                {{"ForAllValues:StringEquals":{{"iot:ConnectAttributes":["{LAST_WILL}"]}}}}}}"#
        )]);
        let asks = |connect_attributes: &[&'static str], action| {
            let variables = Variables {
                connect_attributes: connect_attributes.to_vec(),
                ..Variables::default()
            };
            will_only.allows(action, "eu-west-1", "x", &variables)
        };
        assert!(asks(&[], Action::Connect) && asks(&[LAST_WILL], Action::Connect));
        assert!(!asks(&[PERSISTENT_CONNECT], Action::Connect));
        assert!(!asks(&[LAST_WILL, PERSISTENT_CONNECT], Action::Connect));
        assert!(asks(&[PERSISTENT_CONNECT], Action::Publish));
    }

    #[test]
    fn nothing_is_allowed_by_default_and_deny_wins() {
        let nothing = policy(&[]);
        assert!(!allows(&nothing, Action::Connect, "thing-1"));
        let everything = policy(&[one("Allow", "iot:*", "*")]);
        assert!(allows(&everything, Action::Connect, "thing-1"));
        let but = policy(&[
            one("Deny", "iot:Publish", &format!("{ARN}:topic/secret/*")),
            one("Allow", "*", "*"),
        ]);
        assert!(allows(&but, Action::Publish, "open/x"));
        assert!(!allows(&but, Action::Publish, "secret/x/y"));
        assert!(allows(&but, Action::Receive, "secret/x/y"));
    }

    #[test]
    fn wildcards_cross_levels_and_those_of_mqtt_are_plain() {
        let p = policy(&[one(
            "Allow",
            "iot:Subscribe",
            &format!("{ARN}:topicfilter/a/+/?"),
        )]);
        assert!(allows(&p, Action::Subscribe, "a/+/x"));
        assert!(!allows(&p, Action::Subscribe, "a/b/x"));
        assert!(!allows(&p, Action::Subscribe, "a/+/xy"));
        assert!(!allows(&p, Action::Publish, "a/+/x"));
        let p = policy(&[one("Allow", "iot:pub*", &format!("{ARN}:topic/a*c"))]);
        assert!(allows(&p, Action::Publish, "a/b/c"));
        assert!(allows(&p, Action::Publish, "acac"));
        assert!(!allows(&p, Action::Publish, "a/b/cd"));
        // Another region or account is another resource.
        let p = policy(&[one("Allow", "iot:Publish", "arn:aws:iot:eu-west-2:*")]);
        assert!(!allows(&p, Action::Publish, "a"));
    }

    #[test]
    fn variables_stand_for_literal_text() {
        let own = format!("{ARN}:topic/${{iot:ClientId}}/${{*}}");
        let p = policy(&[one("Allow", "iot:Publish", &own)]);
        assert!(allows(&p, Action::Publish, "thing-1/*"));
        assert!(!allows(&p, Action::Publish, "thing-1/x"));
        assert!(!allows(&p, Action::Publish, "thing-2/*"));
        let star = Variables {
            client_id: "*".to_owned(),
            ..Variables::default()
        };
        assert!(!p.allows(Action::Publish, "eu-west-1", "thing-1/*", &star));
        let nobody = format!("{ARN}:topic/${{cognito-identity.amazonaws.com:sub}}*");
        let p = policy(&[one("Allow", "iot:Publish", &nobody)]);
        assert!(!allows(&p, Action::Publish, "x"));
    }

    #[test]
    fn a_worst_case_pattern_is_no_trouble() {
        let p = policy(&[one("Allow", "*", &format!("{}b", "*a".repeat(200)))]);
        assert!(!allows(&p, Action::Publish, &"a".repeat(10_000)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let parse = |document: &str| Policy::parse(document).unwrap_err();
        assert_eq!(parse("{"), PolicyError::NotJson);
        assert_eq!(parse("{}"), PolicyError::Malformed("Version"));
        let with = |statement: &str| {
            parse(&format!(
                r#"{{"Version":"2012-10-17","Statement":{statement}}}"#
            ))
        };
        assert_eq!(with("1"), PolicyError::Malformed("Statement"));
        assert_eq!(
            with(r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{}}}"#),
            PolicyError::Unsupported("Condition".to_owned())
        );
        assert_eq!(
            with(&one("Maybe", "*", "*")),
            PolicyError::Malformed("Effect")
        );
        assert_eq!(
            with(&one("Allow", "*", "${iot:Nobody}")),
            PolicyError::Unsupported("iot:Nobody".to_owned())
        );
        let frame = one("Allow", "*", "").len() + r#"{"Version":"2012-10-17","Statement":}"#.len();
        let long = "x".repeat(MAX_POLICY_LENGTH - frame + 1);
        assert_eq!(with(&one("Allow", "*", &long)), PolicyError::TooLong);
        let fits = one("Allow", "*", &long[1..]);
        policy(&[]);
        Policy::parse(&format!(r#"{{"Version":"2012-10-17","Statement":{fits}}}"#)).unwrap();
    }
}
