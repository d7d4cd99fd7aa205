//! Accepts connections, judges their requests and answers them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use time::{
    OffsetDateTime, format_description::StaticFormatDescription, macros::format_description,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::{
    Fault, MAX_CONNECTIONS, Shared,
    attempt::{Attempt, Outcome, Refusal},
    authorizer::Principal,
    inspect::{self, Inspector},
    relay,
    sigv4::{Query, Rules, verify},
};
use crate::{
    net::{RequestHead, Stream, read_head},
    peer::{offered_subprotocol, push_headers, switching_protocols},
};

/// How long TLS and the head of the request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may take to read an answer and go.
const LINGER: Duration = Duration::from_secs(2);

const HTTP_DATE: StaticFormatDescription = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this task, it takes the connections along.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (tcp, permit) = accept(&listener, &room) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let mut closed = shared.closed.subscribe();
                    closed.mark_unchanged();
                    tokio::select! {
                        // Whatever goes wrong on a connection ends it, and the client sees that.
                        _ = connection(tcp, &shared) => {}
                        _ = closed.changed() => {}
                    }
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, tokio::sync::OwnedSemaphorePermit) {
    let permit = Arc::clone(room).acquire_owned().await;
    let permit = permit.expect("the semaphore is never closed");
    loop {
        // A client that is gone before it is accepted is no concern of the next one.
        if let Ok((tcp, _)) = listener.accept().await {
            return (tcp, permit);
        }
    }
}

async fn connection(tcp: TcpStream, shared: &Shared) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let source = tcp.peer_addr()?.ip();
    let head = async {
        let mut stream = match &shared.tls {
            None => Stream::Tcp(tcp),
            Some(tls) => Stream::Tls(Box::new(tls.accept(tcp).await?)),
        };
        let head = read_head(&mut stream).await;
        Ok::<_, io::Error>((stream, head))
    };
    let (mut stream, head) = tokio::time::timeout(HEAD_TIMEOUT, head).await??;
    let now = shared.options.clock.now();
    let head = match head {
        Ok(head) => head,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            shared.attempts.add(Attempt {
                at: now,
                access_key_id: None,
                signature: None,
                outcome: Outcome::NotAnUpgrade,
            });
            return answer(stream, 400, "InvalidRequestException:", now, "Bad Request").await;
        }
        // Not even a request.
        Err(error) => return Err(error),
    };

    let query = Query::of(&head);
    let claim = query.claim();
    let record = |outcome| {
        shared.attempts.add(Attempt {
            at: now,
            access_key_id: claim.access_key_id.clone(),
            signature: claim.signature.clone(),
            outcome,
        });
    };
    match shared.next_fault() {
        None => {}
        Some(Fault::Refuse(status)) => {
            record(Outcome::Injected(status));
            let (kind, message) = kind_of(status);
            return answer(stream, status, kind, now, message).await;
        }
        Some(Fault::Stall) => {
            record(Outcome::Stalled);
            return std::future::pending().await;
        }
    }
    let Some(granted) = switching_protocols(&head, &[]) else {
        record(Outcome::NotAnUpgrade);
        return answer(stream, 426, "UpgradeRequired:", now, "Upgrade Required").await;
    };
    let principal = match judge(&head, &query, shared, now) {
        Ok(principal) => principal,
        Err(refusal) => {
            record(Outcome::Refused(refusal));
            return answer(stream, 403, "ForbiddenException:", now, "Forbidden").await;
        }
    };
    let Ok(broker) = relay::dial(&shared.broker).await else {
        record(Outcome::BrokerUnreachable);
        let (kind, message) = kind_of(503);
        return answer(stream, 503, kind, now, message).await;
    };
    // Recorded first: a client that has its answer finds the record.
    record(Outcome::Accepted);
    stream.write_all(granted.as_bytes()).await?;
    stream.flush().await?;
    let rules = inspect::Rules {
        region: shared.options.region.clone(),
        quotas: shared.options.quotas.clone(),
        denied_publish: shared.options.denied_publish,
        authorizers: shared.options.authorizers.clone(),
        repeat_deliveries: Arc::clone(&shared.repeat_deliveries),
    };
    let inspector = Inspector::new(rules, principal, source);
    relay::relay(stream, broker, inspector, shared).await
}

/// Who is let in: somebody, or whom the CONNECT will name.
fn judge(
    head: &RequestHead,
    query: &Query<'_>,
    shared: &Shared,
    now: SystemTime,
) -> Result<Option<Principal>, Refusal> {
    if head.target().split('?').next() != Some("/mqtt") {
        return Err(Refusal::Path);
    }
    offered_subprotocol(head).ok_or(Refusal::Subprotocol)?;
    let mut hosts = head.header_values("host");
    let host = hosts.next();
    let expected = shared.options.host.as_deref();
    if host.is_none() || hosts.next().is_some() || expected.is_some_and(|e| host != Some(e)) {
        return Err(Refusal::Host);
    }
    let rules = Rules {
        region: &shared.options.region,
        max_skew: shared.options.max_skew,
        keys: &shared.options.keys,
        now,
        end_at_expiry: shared.options.end_at_expiry,
    };
    let authorizers = &shared.options.authorizers;
    if let Some(judged) = authorizers.by_request(head, query) {
        return judged.map(Some);
    }
    if !authorizers.is_empty() && query.first("X-Amz-Algorithm").is_none() {
        // The CONNECT has to say who it is.
        return Ok(None);
    }
    verify(head, query, &rules).map(Some)
}

/// Answers as the service does, then waits for the client to go.
async fn answer(
    mut stream: Stream,
    status: u16,
    kind: &str,
    now: SystemTime,
    message: &str,
) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let request_id = format!("00000000-0000-4000-8000-{number:012x}");
    let body = serde_json::json!({ "message": message, "traceId": request_id }).to_string();
    let date = OffsetDateTime::from(now).format(HTTP_DATE);
    let date = date.map_err(io::Error::other)?;
    let mut head = format!("HTTP/1.1 {status} {message}\r\n");
    if status == 426 {
        head.push_str("upgrade: websocket\r\n");
    }
    push_headers(
        &mut head,
        &[
            ("content-type", "application/json"),
            ("content-length", &body.len().to_string()),
            ("date", &date),
            // In the service's own spelling, its colon included.
            ("x-amzn-ErrorType", kind),
            ("x-amzn-RequestId", &request_id),
            (
                "access-control-expose-headers",
                "x-amzn-ErrorType,x-amzn-RequestId,Date",
            ),
            ("connection", "close"),
        ],
    );
    head.push_str(&body);
    let going = async {
        stream.write_all(head.as_bytes()).await?;
        stream.shutdown().await?;
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(LINGER, going).await?
}

fn kind_of(status: u16) -> (&'static str, &'static str) {
    match status {
        400 => ("InvalidRequestException:", "Bad Request"),
        401 => ("UnauthorizedException:", "Unauthorized"),
        403 => ("ForbiddenException:", "Forbidden"),
        404 => ("ResourceNotFoundException:", "Not Found"),
        429 => ("ThrottlingException:", "Too Many Requests"),
        503 => ("ServiceUnavailableException:", "Service Unavailable"),
        _ => ("InternalFailureException:", "Internal Failure"),
    }
}
