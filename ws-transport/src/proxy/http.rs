//! `CONNECT` through an HTTP proxy.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, BytesMut};
use http::{StatusCode, header::PROXY_AUTHORIZATION};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use zeroize::Zeroizing;

use super::Credentials;
use crate::{BoxedIo, ProxyError, Target, http1};

const MAX_HEAD_LEN: usize = 16 * 1024;

pub(super) async fn connect(
    mut io: BoxedIo,
    target: &Target,
    credentials: Option<&Credentials>,
) -> Result<BoxedIo, ProxyError> {
    let authority = target.authority();
    let authorization = credentials.map(Credentials::basic).transpose()?;
    {
        let mut request = Zeroizing::new(Vec::with_capacity(1024 + 2 * authority.len()));
        let mut put = |part: &[u8]| request.extend_from_slice(part);
        put(b"CONNECT ");
        put(authority.as_bytes());
        put(b" HTTP/1.1\r\nHost: ");
        put(authority.as_bytes());
        put(b"\r\n");
        if let Some(value) = &authorization {
            put(PROXY_AUTHORIZATION.as_str().as_bytes());
            put(b": ");
            put(value.as_bytes());
            put(b"\r\n");
        }
        put(b"\r\n");
        io.write_all(&request).await.map_err(ProxyError::Io)?;
    }
    io.flush().await.map_err(ProxyError::Io)?;

    let mut buffer = BytesMut::new();
    let status = loop {
        let status = http1::read_head(&mut io, &mut buffer, MAX_HEAD_LEN, |head| Ok(head.status))
            .await
            .map_err(|error| match error {
                http1::HeadError::Io(error) => ProxyError::Io(error),
                http1::HeadError::Malformed | http1::HeadError::TooLong => ProxyError::Malformed,
            })?;
        if !status.is_informational() {
            break status;
        }
    };
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        return Err(ProxyError::Authentication);
    }
    if !status.is_success() {
        return Err(ProxyError::Refused(status));
    }
    if buffer.is_empty() {
        return Ok(io);
    }
    // A target that speaks first.
    Ok(Box::new(Prefixed { prefix: buffer, io }))
}

/// A stream whose first bytes have been read already.
struct Prefixed {
    prefix: BytesMut,
    io: BoxedIo,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let len = self.prefix.len().min(buf.remaining());
        let (head, _) = self.prefix.split_at(len);
        buf.put_slice(head);
        self.prefix.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
