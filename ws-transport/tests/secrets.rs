//! Nothing secret in what this crate shows and says, nor in any log at DEBUG and above, nor at TRACE with the filter
//! that the documentation gives.

mod common;

use std::{
    error::Error,
    fmt::{self, Debug, Write as _},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use common::{InMemory, echo, read_head};
use http::{HeaderName, HeaderValue, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tracing::{
    Event, Level, Metadata,
    field::{Field, Visit},
    span,
};
use ws_transport::{
    ConnectError, Connector, Dial as _, Endpoint, EndpointError, EnvProxies, Message, Proxy,
    ProxyConfigError, TextMessages, UpgradeRequest, WebSocketConfig,
};

/// In every secret here.
const MARKER: &str = "MARKER";

const URL: &str =
    "ws://localhost/path?X-Amz-Signature=QueryMARKER&X-Amz-Security-Token=TokenMARKER";

/// What has been logged through `tracing` and through `log`, by anybody in the process.
static LOGGED: Mutex<String> = Mutex::new(String::new());

struct Capture;

/// `tungstenite=info,tokio_tungstenite=info`; but DEBUG passes here, to see that it is clean, too.
fn is_filtered_at_trace(target: &str) -> bool {
    target.starts_with("tungstenite") || target.starts_with("tokio_tungstenite")
}

impl log::Log for Capture {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let filtered = is_filtered_at_trace(metadata.target());
        metadata.level() <= log::Level::Debug || !filtered
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut logged = LOGGED.lock().unwrap();
            writeln!(logged, "log {} {}", record.target(), record.args()).unwrap();
        }
    }

    fn flush(&self) {}
}

impl tracing::Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= &Level::DEBUG || !is_filtered_at_trace(metadata.target())
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut text = format!("span {}", attributes.metadata().name());
        attributes.record(&mut Fields(&mut text));
        writeln!(LOGGED.lock().unwrap(), "{text}").unwrap();
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Fields(&mut LOGGED.lock().unwrap()));
    }

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = format!("event {}", event.metadata().target());
        event.record(&mut Fields(&mut text));
        writeln!(LOGGED.lock().unwrap(), "{text}").unwrap();
    }

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

fn capture() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        log::set_boxed_logger(Box::new(Capture)).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        tracing::subscriber::set_global_default(Capture).unwrap();
    });
}

fn assert_clean(what: &str, shown: &str) {
    assert!(!shown.contains(MARKER), "{what} shows a secret: {shown}");
}

fn assert_shows_nothing(value: &impl Debug) {
    assert_clean("Debug", &format!("{value:?}"));
    assert_clean("Debug", &format!("{value:#?}"));
}

/// The error and all that it stands on.
fn assert_error_shows_nothing(error: &(dyn Error + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        assert_clean("Display", &error.to_string());
        assert_clean("Debug", &format!("{error:?}"));
        next = error.source();
    }
}

fn endpoint() -> Endpoint {
    URL.parse().unwrap()
}

fn request() -> UpgradeRequest {
    let mut marked = HeaderValue::from_static("HeaderMARKER");
    marked.set_sensitive(true);
    common::request()
        .header(
            header::AUTHORIZATION,
            HeaderValue::from_static("Bearer AuthorizationMARKER"),
        )
        .unwrap()
        .header(HeaderName::from_static("x-secret"), marked)
        .unwrap()
}

async fn fail(script: impl AsyncFnOnce(&mut DuplexStream)) -> ConnectError {
    let (dialer, mut theirs) = InMemory::pair();
    let connector = Connector::new()
        .dialer(dialer)
        .timeout(Duration::from_secs(5));
    assert_shows_nothing(&connector);
    let (endpoint, request) = (endpoint(), request());
    let server = async {
        script(&mut theirs).await;
        drop(theirs);
    };
    let (result, ()) = tokio::join!(connector.connect(&endpoint, &request), server);
    result.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn an_open_connection_says_nothing() {
    capture();
    let (dialer, theirs) = InMemory::pair();
    let server = tokio::spawn(echo(theirs));
    let config = WebSocketConfig::new().text(TextMessages::Deliver);
    let connector = Connector::new().dialer(dialer).websocket(config);
    let (endpoint, request) = (endpoint(), request());
    assert_shows_nothing(&endpoint);
    assert_clean("Display", &endpoint.to_string());
    assert_shows_nothing(&endpoint.target());
    assert_shows_nothing(&request);
    let mut socket = connector.connect(&endpoint, &request).await.unwrap();
    socket.send("PayloadMARKER").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "PayloadMARKER");
    socket
        .start_send_message(Message::Text("TextMARKER".to_owned()))
        .unwrap();
    socket.flush().await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "TextMARKER");
    assert_shows_nothing(&socket);
    socket.close().await;
    server.await.unwrap();
    assert_clean("the log", &LOGGED.lock().unwrap());
    // The capture works.
    assert!(LOGGED.lock().unwrap().contains("event ws_transport"));
}

#[tokio::test(start_paused = true)]
async fn failing_connects_say_nothing() {
    capture();
    let refused = fail(async |io| {
        let head = read_head(io).await;
        assert!(head.contains("?X-Amz-Signature=QueryMARKER&"));
        // AWS repeats what was signed in some refusals; a hostile server may do so anywhere.
        let answer = format!(
            "HTTP/1.1 403 MARKER\r\nx-amzn-errortype: Query MARKER\r\nx-echo: MARKER\r\n\r\n{head}"
        );
        io.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    if let ConnectError::Refused(refusal) = &refused {
        assert!(refusal.body().windows(6).any(|word| word == b"MARKER"));
        assert_shows_nothing(refusal);
    } else {
        panic!("{refused:?}");
    }
    let malformed = fail(async |io| {
        let head = read_head(io).await;
        io.write_all(head.as_bytes()).await.unwrap();
    })
    .await;
    let unknown = fail(async |io| {
        read_head(io).await;
        io.write_all(
            b"HTTP/1.1 101 x\r\nUpgrade: MARKER\r\nSec-WebSocket-Protocol: MARKER\r\n\r\n",
        )
        .await
        .unwrap();
    })
    .await;
    let cut = fail(async |io| {
        read_head(io).await;
    })
    .await;
    let plain = Connector::new()
        .connect(
            &"ws://broker.example/?QueryMARKER".parse().unwrap(),
            &request(),
        )
        .await
        .unwrap_err();
    for error in [refused, malformed, unknown, cut, plain] {
        assert_error_shows_nothing(&error);
    }
    assert_clean("the log", &LOGGED.lock().unwrap());
}

#[test]
fn urls_that_are_refused_are_not_repeated() {
    for url in [
        "MARKER://host/",
        "wss://user:MARKER@host/",
        "wss://MARKER MARKER/",
        "wss://host:MARKER/",
        "wss://host/?MARKER\n",
        "wss://host/#MARKER",
    ] {
        let error: EndpointError = url.parse::<Endpoint>().unwrap_err();
        assert_error_shows_nothing(&error);
    }
    for url in [
        "MARKER://host",
        "http://MARKER:MARKER@/",
        "http://%MARKER@host",
    ] {
        let error: ProxyConfigError = url.parse::<Proxy>().unwrap_err();
        assert_error_shows_nothing(&error);
    }
}

#[tokio::test(start_paused = true)]
async fn proxies_say_nothing() {
    capture();
    let urls = [
        "http://userMARKER:passMARKER@localhost",
        "socks5://userMARKER:passMARKER@localhost",
    ];
    for url in urls {
        let (dialer, mut theirs) = InMemory::pair();
        let proxy: Proxy = url.parse().unwrap();
        let proxy = proxy.dialer(dialer);
        assert_shows_nothing(&proxy);
        let server = async {
            let mut bytes = Vec::new();
            theirs.read_buf(&mut bytes).await.unwrap();
            let _gone = theirs.write_all(b"HTTP/1.1 407 MARKER\r\n\r\n").await;
            drop(theirs);
        };
        let endpoint = endpoint();
        let (result, ()) = tokio::join!(proxy.dial(endpoint.target()), server);
        let Err(error) = result else {
            panic!("the tunnel stands");
        };
        assert_error_shows_nothing(&error);
    }
    let proxies = EnvProxies::from_variables(|_| Some(urls[0].to_owned())).unwrap();
    assert_shows_nothing(&proxies);
    assert_clean("the log", &LOGGED.lock().unwrap());
}

#[cfg(feature = "tls")]
#[tokio::test(start_paused = true)]
async fn tls_says_nothing_either() {
    use common::tls::{Authority, acceptor, trusting};

    capture();
    let authority = Authority::new("ours");
    let acceptor = acceptor(&authority.server("localhost"));
    let (dialer, theirs) = InMemory::pair();
    let server = tokio::spawn(async move { echo(acceptor.accept(theirs).await.unwrap()).await });
    let connector = Connector::new()
        .dialer(dialer)
        .tls(trusting(&authority).build().unwrap());
    let endpoint: Endpoint = URL.replace("ws://", "wss://").parse().unwrap();
    let mut socket = connector.connect(&endpoint, &request()).await.unwrap();
    socket.send("PayloadMARKER").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "PayloadMARKER");
    assert_shows_nothing(&socket);
    socket.close().await;
    server.await.unwrap();
    assert_clean("the log", &LOGGED.lock().unwrap());
}

#[cfg(feature = "tls")]
#[test]
fn keys_are_not_shown() {
    use ws_transport::TlsConfig;

    let builder = TlsConfig::builder().client_certificate_pem("ChainMARKER", "KeyMARKER");
    assert_shows_nothing(&builder);
    let error = builder.add_roots_pem("RootMARKER").build().unwrap_err();
    assert_error_shows_nothing(&error);
}

/// `fmt::Debug` alone would not see this one: it is what a user prints.
#[test]
fn display_of_an_endpoint_keeps_what_is_no_secret() {
    let shown = fmt::format(format_args!("{}", endpoint()));
    assert_eq!(shown, "ws://localhost/path?<redacted>");
}
