//! Custom authorizers: who a client is, said by a token instead of a signature.

use std::{fmt, time::Duration};

use super::{
    attempt::Refusal,
    policy::Policy,
    sigv4::{Query, decode, same},
};
use crate::net::RequestHead;

const NAME: &str = "x-amz-customauthorizer-name";
const SIGNATURE: &str = "x-amz-customauthorizer-signature";

/// A custom authorizer as the gateway knows it: it lets a client in that names it and gives its
/// token. `Debug` shows its name only.
#[derive(Clone)]
pub struct Authorizer {
    name: String,
    token_key: String,
    token: String,
    signature: Option<String>,
    password: Option<Vec<u8>>,
    policy: Option<Policy>,
    life: Option<Duration>,
}

impl Authorizer {
    /// Lets clients in that give this token under this key.
    #[must_use]
    pub fn new(name: &str, token_key: &str, token: &str) -> Self {
        Self {
            name: name.to_owned(),
            token_key: token_key.to_owned(),
            token: token.to_owned(),
            signature: None,
            password: None,
            policy: None,
            life: None,
        }
    }

    /// Asks for this signature of the token too, in base64. It is compared and not computed: which
    /// key signed it is nobody's business here.
    #[must_use]
    pub fn signature(mut self, signature: &str) -> Self {
        self.signature = Some(signature.to_owned());
        self
    }

    /// Asks for this password in the CONNECT of a client that gives its token there.
    #[must_use]
    pub fn password(mut self, password: &[u8]) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// What its clients may do; everything unless set.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How long its connections may last: as with the service, one ends with the first packet after
    /// that.
    #[must_use]
    pub fn disconnect_after(mut self, life: Duration) -> Self {
        self.life = Some(life);
        self
    }

    fn accepts(&self, token: Option<&str>, signature: Option<&str>) -> bool {
        let token_fits = token.is_some_and(|token| same(token, &self.token));
        match &self.signature {
            None => token_fits,
            Some(known) => token_fits && signature.is_some_and(|given| same(given, known)),
        }
    }

    fn principal(&self) -> Principal {
        Principal {
            policy: self.policy.clone(),
            identity_id: None,
            life: self.life,
        }
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Whoever was let in.
#[derive(Clone, Debug)]
pub(super) struct Principal {
    pub(super) policy: Option<Policy>,
    pub(super) identity_id: Option<String>,
    pub(super) life: Option<Duration>,
}

/// The authorizers of a gateway.
#[derive(Clone, Debug, Default)]
pub(super) struct Authorizers(pub(super) Vec<Authorizer>);

impl Authorizers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Judges an upgrade request that names an authorizer in its query or its headers; `None` if it
    /// names none.
    pub(super) fn by_request(
        &self,
        head: &RequestHead,
        query: &Query<'_>,
    ) -> Option<Result<Principal, Refusal>> {
        let find = |name: &str| {
            let in_query = query.first(name);
            in_query.or_else(|| head.header(name).map(str::to_owned))
        };
        let name = find(NAME)?;
        let found = self.0.iter().find(|a| a.name == name);
        let accepted = found.filter(|authorizer| {
            let token = find(&authorizer.token_key);
            let signature = find(SIGNATURE);
            authorizer.accepts(token.as_deref(), signature.as_deref())
        });
        Some(match accepted {
            Some(authorizer) => Ok(authorizer.principal()),
            None => Err(Refusal::Authorizer),
        })
    }

    /// Judges the user name of a CONNECT: `NAME?x-amz-customauthorizer-name=…&KEY=TOKEN…`.
    pub(super) fn by_user_name(&self, name: &str, password: Option<&[u8]>) -> Option<Principal> {
        let (_, query) = name.split_once('?')?;
        let find = |wanted: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let mut values = pairs.filter(|(name, _)| *name == wanted);
            let (_, value) = values.next()?;
            String::from_utf8(decode(value).into_owned()).ok()
        };
        let name = find(NAME)?;
        let authorizer = self.0.iter().find(|a| a.name == name)?;
        let token = find(&authorizer.token_key);
        let signature = find(SIGNATURE);
        let known = authorizer.password.as_deref();
        let fits = authorizer.accepts(token.as_deref(), signature.as_deref())
            && known.is_none_or(|known| password == Some(known));
        fits.then(|| authorizer.principal())
    }
}
