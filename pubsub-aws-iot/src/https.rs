//! HTTPS calls to one server: hyper's HTTP/1.1 over ws-transport's dialling, proxies and TLS.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
#[cfg(any(feature = "cognito", feature = "control-plane"))]
use ws_transport::Host;
use ws_transport::{Connector, Security, Stream, Target};

/// How long a call may take, from the name's resolution to the end of the answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest answer that is read, in bytes. Credentials take about two thousand.
pub(crate) const MAX_ANSWER_LEN: usize = 64 * 1024;

/// How many connections are kept for the next calls. More calls at a time are made all the same, and their connections
/// closed after.
pub(crate) const MAX_IDLE: usize = 4;

/// How long a connection is kept. Servers close those that say nothing for a minute or so; one that closes while a
/// request is on its way costs the request.
pub(crate) const MAX_IDLE_TIME: Duration = Duration::from_secs(20);

/// A server that is called now and then. Clones share its connections.
#[derive(Clone)]
pub(crate) struct HttpsClient {
    connector: Connector,
    target: Target,
    idle: Arc<Mutex<Vec<Idle>>>,
}

/// An answer, good or bad.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A connection on which nothing is under way. Nobody polls it until it is used again; then it turns out whether the
/// server has closed it.
struct Idle {
    connection: Connection,
    since: Instant,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<Stream>, Full<Bytes>>>>,
}

/// What came of a request that was given to a connection.
enum Sent {
    Answered(Result<Answer, HttpsError>),
    /// The connection was closed before anything of the request was written.
    Unsent(Box<Request<Full<Bytes>>>),
}

impl HttpsClient {
    pub(crate) fn new(connector: Connector, target: Target) -> Self {
        Self {
            connector: connector.timeout(TIMEOUT),
            target,
            idle: Arc::default(),
        }
    }

    #[cfg(any(feature = "cognito", feature = "control-plane"))]
    pub(crate) fn with_connector(&self, connector: Connector) -> Self {
        Self::new(connector, self.target.clone())
    }

    #[cfg(any(feature = "cognito", feature = "control-plane"))]
    pub(crate) fn with_target(&self, target: Target) -> Self {
        Self::new(self.connector.clone(), target)
    }

    /// Scheme, host and port of every call.
    #[cfg(any(feature = "https-publish", feature = "control-plane"))]
    pub(crate) fn origin(&self) -> String {
        let scheme = match self.target.security() {
            Security::Plain => "http",
            _ => "https",
        };
        format!("{scheme}://{}", self.target.host_header())
    }

    /// Sends a request, on a connection that was kept or on a new one.
    ///
    /// A request is sent once. Only where a kept connection turns out to be closed before anything was written is it sent
    /// on another. Dropping the future closes the connection.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, HttpsError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.target.host_header());
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

    async fn call(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, HttpsError> {
        while let Some(kept) = self.take_idle() {
            // Lets the runtime look at its sockets, for what the server said or did while nobody did.
            tokio::task::yield_now().await;
            match self.send_on(kept, request).await {
                Sent::Answered(answer) => return answer,
                Sent::Unsent(back) => request = *back,
            }
        }
        let stream = self.connector.connect_stream(&self.target).await;
        let stream = stream.map_err(|error| HttpsError::Connect(Box::new(error)))?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| HttpsError::Http(Box::new(error)))?;
        let new = Connection {
            sender,
            driver: Box::pin(driver),
        };
        match self.send_on(new, request).await {
            Sent::Answered(answer) => answer,
            Sent::Unsent(_) => Err(HttpsError::Http(
                "the server closed the connection at once".into(),
            )),
        }
    }

    async fn send_on(&self, mut connection: Connection, request: Request<Full<Bytes>>) -> Sent {
        let mut is_over = false;
        let sent = {
            let mut answering = std::pin::pin!(answer_to(&mut connection.sender, request));
            // The driver does the work, and is done before the answer where the server closes after it.
            let sent = tokio::select! {
                biased;
                sent = &mut answering => Some(sent),
                _ = &mut connection.driver => None,
            };
            match sent {
                Some(sent) => sent,
                None => {
                    is_over = true;
                    answering.await
                }
            }
        };
        if matches!(sent, Sent::Answered(Ok(_))) && !is_over && connection.is_reusable().await {
            self.keep(connection);
        }
        sent
    }

    /// The connection that was used last, of those that are not too old.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| kept.since.elapsed() < MAX_IDLE_TIME);
        idle.pop().map(|kept| kept.connection)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| kept.since.elapsed() < MAX_IDLE_TIME);
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }
}

impl fmt::Debug for HttpsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsClient")
            .field("connector", &self.connector)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Whether the server, too, lets it stand for another request.
    async fn is_reusable(&mut self) -> bool {
        poll_fn(|cx| {
            let is_over = self.driver.as_mut().poll(cx).is_ready();
            let is_ready = matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())));
            Poll::Ready(!is_over && is_ready)
        })
        .await
    }
}

async fn answer_to(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Sent {
    let answer = match sender.try_send_request(request).await {
        Ok(answer) => answer,
        Err(mut error) => {
            return match error.take_message() {
                Some(request) => Sent::Unsent(Box::new(request)),
                None => Sent::Answered(Err(HttpsError::Http(Box::new(error.into_error())))),
            };
        }
    };
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER_LEN).collect().await;
    Sent::Answered(match body {
        Ok(body) => Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        }),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpsError::TooLarge),
        Err(error) => Err(HttpsError::Http(error)),
    })
}

#[cfg(any(feature = "cognito", feature = "control-plane"))]
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

#[cfg(all(test, any(feature = "cognito", feature = "control-plane")))]
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
