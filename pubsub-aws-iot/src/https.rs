//! One HTTPS call: hyper's HTTP/1.1 over ws-transport's dialling, proxies and TLS.

use std::error::Error as StdError;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{HeaderMap, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use ws_transport::{Connector, Target};
#[cfg(feature = "cognito")]
use ws_transport::{Host, Security};

/// How long a call may take, from the name's resolution to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest answer that is read, in bytes. Credentials take about two thousand.
pub(crate) const MAX_ANSWER_LEN: usize = 64 * 1024;

/// A server that is called now and then: each call has a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct HttpsClient {
    connector: Connector,
    target: Target,
}

/// An answer, good or bad.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpsClient {
    pub(crate) fn new(connector: Connector, target: Target) -> Self {
        Self {
            connector: connector.timeout(TIMEOUT),
            target,
        }
    }

    #[cfg(feature = "cognito")]
    pub(crate) fn with_connector(&self, connector: Connector) -> Self {
        Self::new(connector, self.target.clone())
    }

    /// Sends a POST. Dropping the future drops the connection.
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, HttpsError> {
        let mut request = Request::post(path).header(header::HOST, self.target.host_header());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| HttpsError::Http(Box::new(error)))?;
        tokio::time::timeout(TIMEOUT, self.call(request))
            .await
            .unwrap_or(Err(HttpsError::Timeout))
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<Answer, HttpsError> {
        let stream = self.connector.connect_stream(&self.target).await;
        let stream = stream.map_err(|error| HttpsError::Connect(Box::new(error)))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| HttpsError::Http(Box::new(error)))?;
        let mut answering = pin!(async move {
            let answer = sender.send_request(request).await;
            let (head, body) = answer
                .map_err(|error| HttpsError::Http(Box::new(error)))?
                .into_parts();
            let body = Limited::new(body, MAX_ANSWER_LEN).collect().await;
            let body = body.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    HttpsError::TooLarge
                } else {
                    HttpsError::Http(error)
                }
            })?;
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        });
        // The connection does the work, and is done before the answer where the server closes after it.
        tokio::select! {
            biased;
            answer = &mut answering => return answer,
            _ = connection => {}
        }
        answering.await
    }
}

#[cfg(feature = "cognito")]
/// Understands `https://host[:port]`, and `http://` to this machine, for tests.
pub(crate) fn target_of(url: &str) -> Option<Target> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (security, default) = match scheme {
        "https" => (Security::Tls, 443),
        "http" => (Security::Plain, 80),
        _ => return None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    let host: Host = host.parse().ok()?;
    (security == Security::Tls || host.is_loopback()).then(|| Target::new(host, port, security))
}

/// Why an HTTPS call had no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum HttpsError {
    /// The server could not be reached; the source says why.
    Connect(Box<dyn StdError + Send + Sync>),
    /// The connection broke, or what came over it is not HTTP; the source says which.
    Http(Box<dyn StdError + Send + Sync>),
    /// It took too long.
    Timeout,
    /// The answer is larger than any that makes sense.
    TooLarge,
}

impl fmt::Display for HttpsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect(_) => "the server could not be reached",
            Self::Http(_) => "the HTTP exchange failed",
            Self::Timeout => "the server did not answer in time",
            Self::TooLarge => "the server's answer is too large",
        })
    }
}

impl StdError for HttpsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connect(source) | Self::Http(source) => Some(source.as_ref()),
            Self::Timeout | Self::TooLarge => None,
        }
    }
}

#[cfg(all(test, feature = "cognito"))]
mod tests {
    use super::*;

    #[test]
    fn targets_are_https_or_this_machine() {
        let told = |url| target_of(url).map(|target| target.host_header());
        assert_eq!(told("https://a.example").as_deref(), Some("a.example"));
        assert_eq!(
            told("https://a.example:8443/").as_deref(),
            Some("a.example:8443")
        );
        assert_eq!(
            told("http://127.0.0.1:5000").as_deref(),
            Some("127.0.0.1:5000")
        );
        assert_eq!(told("http://[::1]:5000").as_deref(), Some("[::1]:5000"));
        for bad in [
            "http://a.example",
            "a.example",
            "ftp://a",
            "https://a b",
            "https://a:x",
            "https://a/path",
        ] {
            assert_eq!(told(bad), None, "{bad}");
        }
    }
}
