//! The service's own topics: Basic Ingest, shadows and jobs.

use std::error::Error as StdError;
use std::fmt;

use pubsub_core::{TopicError, TopicFilter, TopicName};

/// The topic that goes to a rule straight away, past the message broker and its price (Basic Ingest): `$aws/rules/RULE/…`.
/// It can only be published to; what follows the rule's name counts as the topic.
///
/// ```
/// use pubsub_aws_iot::basic_ingest;
/// use pubsub_aws_iot::core::TopicName;
///
/// let topic = basic_ingest("store_readings", &TopicName::new("rooms/kitchen")?)?;
/// assert_eq!(topic, "$aws/rules/store_readings/rooms/kitchen");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// When the rule's name is none: 1 to 128 letters, digits and `_`.
pub fn basic_ingest(rule: &str, topic: &TopicName) -> Result<TopicName, ServiceTopicError> {
    check(Kind::Rule, rule)?;
    Ok(TopicName::new(format!(
        "$aws/rules/{rule}/{}",
        topic.as_str()
    ))?)
}

/// The topics of a thing's shadow: the state that the service keeps for a device, wanted and reported, also while it is
/// away.
///
/// A request is a publish to [`request`](Self::request), and its answer a message of [`answers`](Self::answers), to be
/// subscribed before. Which answer is to which request tells the `clientToken` in their JSON.
///
/// ```
/// use pubsub_aws_iot::{Shadow, ShadowRequest};
///
/// let shadow = Shadow::named("kitchen-lamp", "colours")?;
/// assert_eq!(shadow.request(ShadowRequest::Update), "$aws/things/kitchen-lamp/shadow/name/colours/update");
/// assert_eq!(shadow.accepted(ShadowRequest::Get).as_str(), "$aws/things/kitchen-lamp/shadow/name/colours/get/accepted");
/// assert_eq!(Shadow::classic("kitchen-lamp")?.delta().as_str(), "$aws/things/kitchen-lamp/shadow/update/delta");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shadow {
    /// Checked, and what every topic of it begins with.
    root: String,
}

/// What can be asked of a [`Shadow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShadowRequest {
    /// The whole document; the payload may be empty.
    Get,
    /// Changes it: the payload has the `desired` or `reported` state.
    Update,
    /// Deletes it.
    Delete,
}

impl ShadowRequest {
    fn level(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Shadow {
    /// The thing's one shadow without a name.
    ///
    /// # Errors
    ///
    /// When the thing's name is none: 1 to 128 letters, digits and `:_-`.
    pub fn classic(thing: &str) -> Result<Self, ServiceTopicError> {
        check(Kind::Thing, thing)?;
        Ok(Self {
            root: format!("$aws/things/{thing}/shadow"),
        })
    }

    /// The thing's shadow of this name.
    ///
    /// # Errors
    ///
    /// As [`classic`](Self::classic), and when the shadow's name is none: 1 to 64 letters, digits and `$:_-`.
    pub fn named(thing: &str, shadow: &str) -> Result<Self, ServiceTopicError> {
        let Self { root } = Self::classic(thing)?;
        check(Kind::Shadow, shadow)?;
        Ok(Self {
            root: format!("{root}/name/{shadow}"),
        })
    }

    /// Where a request is published.
    #[must_use]
    pub fn request(&self, request: ShadowRequest) -> TopicName {
        checked_topic(format!("{}/{}", self.root, request.level()))
    }

    /// Answers to requests that were granted, everybody's.
    #[must_use]
    pub fn accepted(&self, request: ShadowRequest) -> TopicFilter {
        checked_filter(format!("{}/{}/accepted", self.root, request.level()))
    }

    /// Answers to requests that were not.
    #[must_use]
    pub fn rejected(&self, request: ShadowRequest) -> TopicFilter {
        checked_filter(format!("{}/{}/rejected", self.root, request.level()))
    }

    /// Both.
    #[must_use]
    pub fn answers(&self, request: ShadowRequest) -> [TopicFilter; 2] {
        [self.accepted(request), self.rejected(request)]
    }

    /// What is desired and differs from what is reported, each time that it comes to differ.
    #[must_use]
    pub fn delta(&self) -> TopicFilter {
        checked_filter(format!("{}/update/delta", self.root))
    }

    /// The whole document, before and after, at each update.
    #[must_use]
    pub fn documents(&self) -> TopicFilter {
        checked_filter(format!("{}/update/documents", self.root))
    }
}

/// The topics of a thing's jobs: what its owner has set the device to do.
///
/// As with a [`Shadow`], each request has two topics for its answers.
///
/// ```
/// use pubsub_aws_iot::{JobRequest, Jobs};
///
/// let jobs = Jobs::new("kitchen-lamp")?;
/// assert_eq!(jobs.request(&JobRequest::StartNext)?, "$aws/things/kitchen-lamp/jobs/start-next");
/// let done = JobRequest::Update { job: "firmware-7".into() };
/// assert_eq!(jobs.request(&done)?, "$aws/things/kitchen-lamp/jobs/firmware-7/update");
/// assert_eq!(jobs.notify_next().as_str(), "$aws/things/kitchen-lamp/jobs/notify-next");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Jobs {
    root: String,
}

/// What can be asked about [`Jobs`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobRequest {
    /// The list of those that are not done.
    Pending,
    /// Begins the next one.
    StartNext,
    /// What there is to do for one.
    Describe {
        /// Its identifier, 1 to 64 letters, digits, `_` and `-`; or `$next` for the next one.
        job: String,
    },
    /// Tells how far one has come.
    Update {
        /// Its identifier, as above but without `$next`.
        job: String,
    },
}

impl Jobs {
    /// Those of this thing.
    ///
    /// # Errors
    ///
    /// When the thing's name is none: 1 to 128 letters, digits and `:_-`.
    pub fn new(thing: &str) -> Result<Self, ServiceTopicError> {
        check(Kind::Thing, thing)?;
        Ok(Self {
            root: format!("$aws/things/{thing}/jobs"),
        })
    }

    /// Where a request is published.
    ///
    /// # Errors
    ///
    /// When the job's identifier is none.
    pub fn request(&self, request: &JobRequest) -> Result<TopicName, ServiceTopicError> {
        Ok(checked_topic(self.text(request)?))
    }

    /// Its answers: granted, and not.
    ///
    /// # Errors
    ///
    /// When the job's identifier is none.
    pub fn answers(&self, request: &JobRequest) -> Result<[TopicFilter; 2], ServiceTopicError> {
        let text = self.text(request)?;
        Ok([
            checked_filter(format!("{text}/accepted")),
            checked_filter(format!("{text}/rejected")),
        ])
    }

    /// The list of what is not done, each time that it changes.
    #[must_use]
    pub fn notify(&self) -> TopicFilter {
        checked_filter(format!("{}/notify", self.root))
    }

    /// The next one, each time that another is.
    #[must_use]
    pub fn notify_next(&self) -> TopicFilter {
        checked_filter(format!("{}/notify-next", self.root))
    }

    fn text(&self, request: &JobRequest) -> Result<String, ServiceTopicError> {
        let root = &self.root;
        Ok(match request {
            JobRequest::Pending => format!("{root}/get"),
            JobRequest::StartNext => format!("{root}/start-next"),
            JobRequest::Describe { job } => {
                if job != "$next" {
                    check(Kind::Job, job)?;
                }
                format!("{root}/{job}/get")
            }
            JobRequest::Update { job } => {
                check(Kind::Job, job)?;
                format!("{root}/{job}/update")
            }
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rule,
    Thing,
    Shadow,
    Job,
}

fn check(kind: Kind, name: &str) -> Result<(), ServiceTopicError> {
    let (max, others, error) = match kind {
        Kind::Rule => (128, "_", ServiceTopicError::RuleName),
        Kind::Thing => (128, ":_-", ServiceTopicError::ThingName),
        Kind::Shadow => (64, "$:_-", ServiceTopicError::ShadowName),
        Kind::Job => (64, "_-", ServiceTopicError::JobId),
    };
    let is_one = (1..=max).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || others.contains(c));
    if is_one { Ok(()) } else { Err(error) }
}

/// A topic of parts that were checked, and hold neither a wildcard nor a slash.
fn checked_topic(text: String) -> TopicName {
    TopicName::new(text).expect("made of checked names")
}

/// As [`checked_topic`].
fn checked_filter(text: String) -> TopicFilter {
    TopicFilter::new(text).expect("made of checked names")
}

/// Which name makes no topic of the service's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceTopicError {
    /// The rule's: 1 to 128 letters, digits and `_`.
    RuleName,
    /// The thing's: 1 to 128 letters, digits and `:_-`.
    ThingName,
    /// The shadow's: 1 to 64 letters, digits and `$:_-`.
    ShadowName,
    /// The job's identifier: 1 to 64 letters, digits, `_` and `-`.
    JobId,
    /// Together they are no topic; the source says why.
    Topic(TopicError),
}

impl From<TopicError> for ServiceTopicError {
    fn from(error: TopicError) -> Self {
        Self::Topic(error)
    }
}

impl fmt::Display for ServiceTopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RuleName => "a rule's name has 1 to 128 letters, digits and `_`",
            Self::ThingName => "a thing's name has 1 to 128 letters, digits and `:_-`",
            Self::ShadowName => "a shadow's name has 1 to 64 letters, digits and `$:_-`",
            Self::JobId => "a job's identifier has 1 to 64 letters, digits, `_` and `-`",
            Self::Topic(_) => "the topic is not one",
        })
    }
}

impl StdError for ServiceTopicError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Topic(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ServiceRules;

    #[test]
    fn every_topic_is_the_services_own() {
        let rules = ServiceRules::default();
        let long = "x".repeat(128);
        let mut topics =
            vec![basic_ingest(&long, &TopicName::new("1/2/3/4/5/6/7/8").unwrap()).unwrap()];
        let mut filters = Vec::new();
        for shadow in [
            Shadow::classic(&long).unwrap(),
            Shadow::named("a:b-c_d", &"$".repeat(64)).unwrap(),
        ] {
            filters.extend([shadow.delta(), shadow.documents()]);
            for request in [
                ShadowRequest::Get,
                ShadowRequest::Update,
                ShadowRequest::Delete,
            ] {
                topics.push(shadow.request(request));
                filters.extend(shadow.answers(request));
            }
        }
        let jobs = Jobs::new("thing").unwrap();
        filters.extend([jobs.notify(), jobs.notify_next()]);
        for request in [
            JobRequest::Pending,
            JobRequest::StartNext,
            JobRequest::Describe {
                job: "$next".into(),
            },
            JobRequest::Update {
                job: "x".repeat(64),
            },
        ] {
            topics.push(jobs.request(&request).unwrap());
            filters.extend(jobs.answers(&request).unwrap());
        }
        for topic in &topics {
            assert_eq!(rules.check_topic(topic), Ok(()), "{topic}");
        }
        for filter in &filters {
            assert_eq!(rules.check_filter(filter), Ok(()), "{filter}");
        }
        assert_eq!((topics.len(), filters.len()), (1 + 6 + 4, 4 + 12 + 2 + 8));
    }

    #[test]
    fn names_are_checked_at_their_bounds() {
        use ServiceTopicError as E;
        let topic = TopicName::new("a").unwrap();
        for bad in ["", "a b", "a/b", "a+", "#", "é", "a-b", &"x".repeat(129)] {
            assert_eq!(basic_ingest(bad, &topic), Err(E::RuleName), "{bad}");
        }
        for bad in ["", "a/b", "a$", "+", &"x".repeat(129)] {
            assert_eq!(Shadow::classic(bad), Err(E::ThingName), "{bad}");
            assert_eq!(Jobs::new(bad), Err(E::ThingName), "{bad}");
        }
        for bad in ["", "a/b", "#", &"x".repeat(65)] {
            assert_eq!(Shadow::named("t", bad), Err(E::ShadowName), "{bad}");
        }
        let jobs = Jobs::new("t").unwrap();
        for bad in ["", "$next", "a:b", "a/b", &"x".repeat(65)] {
            let update = JobRequest::Update { job: bad.into() };
            assert_eq!(jobs.request(&update), Err(E::JobId), "{bad}");
            assert_eq!(jobs.answers(&update), Err(E::JobId), "{bad}");
        }
    }
}
