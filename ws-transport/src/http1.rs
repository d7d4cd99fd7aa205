//! As much HTTP/1.x as a client needs that reads one answer: its head, and a bounded piece of its body.

use std::{io, mem::MaybeUninit};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time,
};

/// Most headers of a head. They lie on the stack while it is looked at.
pub(crate) const MAX_HEADERS: usize = 64;

/// A status line and headers, where they were read.
pub(crate) struct Head<'b> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'b [httparse::Header<'b>],
}

impl Head<'_> {
    /// The headers, to be kept.
    pub(crate) fn to_map(&self) -> Result<HeaderMap, HeadError> {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for header in self.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let value = HeaderValue::from_bytes(header.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(HeadError::Malformed);
            };
            headers.append(name, value);
        }
        Ok(headers)
    }
}

#[derive(Debug)]
pub(crate) enum HeadError {
    Io(io::Error),
    Malformed,
    TooLong,
}

/// Reads up to the end of a head, of at most [`MAX_HEADERS`], and takes from it what is wanted: nothing of it is kept
/// otherwise. What came behind it stays in the buffer.
pub(crate) async fn read_head<R, T>(
    io: &mut R,
    buffer: &mut BytesMut,
    max_len: usize,
    take: impl Fn(&Head<'_>) -> Result<T, HeadError>,
) -> Result<T, HeadError>
where
    R: AsyncRead + Unpin,
{
    // Where the search for the empty line goes on: without it, an answer that dribbles in would be searched
    // from the start each time.
    let mut searched = 0;
    loop {
        if !could_be_http(buffer) {
            return Err(HeadError::Malformed);
        }
        let from = searched.min(buffer.len());
        let end = buffer
            .get(from..)
            .and_then(end_of_head)
            .map(|end| from + end);
        match end {
            Some(end) if end <= max_len => {
                let head = buffer.get(..end).unwrap_or_default();
                let taken = parse_head(head, &take);
                buffer.advance(end);
                return taken;
            }
            None if buffer.len() < max_len => {}
            _ => return Err(HeadError::TooLong),
        }
        searched = buffer.len().saturating_sub(3);
        let room = max_len - buffer.len();
        if buffer.len() == buffer.capacity() {
            buffer.reserve(room.min(4096));
        }
        let read = (&mut *io)
            .take(room as u64)
            .read_buf(buffer)
            .await
            .map_err(HeadError::Io)?;
        if read == 0 {
            return Err(HeadError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Reads the body until it is whole, too long, late or the connection ends, and returns what there is.
pub(crate) async fn read_body<R>(
    io: &mut R,
    mut buffer: BytesMut,
    status: StatusCode,
    headers: &HeaderMap,
    max_len: usize,
    until: time::Instant,
) -> Bytes
where
    R: AsyncRead + Unpin,
{
    let framing = Framing::of(status, headers);
    // Chunk sizes come on top; a body in tiny chunks is cut short rather than read for ever.
    let max_raw = max_len.saturating_mul(2);
    while buffer.len() < max_raw && !framing.is_complete(&buffer) {
        let room = (max_raw - buffer.len()).min(4096);
        buffer.reserve(room);
        let mut limited = (&mut *io).take(room as u64);
        match time::timeout_at(until, limited.read_buf(&mut buffer)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => break,
        }
    }
    let mut body = match framing {
        Framing::Length(len) => {
            buffer.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            buffer
        }
        Framing::UntilEnd => buffer,
        Framing::Chunked => dechunk(&buffer),
    };
    body.truncate(max_len);
    body.freeze()
}

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy)]
enum Framing {
    Length(u64),
    Chunked,
    UntilEnd,
}

impl Framing {
    fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Self::Length(0);
        }
        if let Some(coding) = headers.get(header::TRANSFER_ENCODING) {
            return if coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                Self::Chunked
            } else {
                Self::UntilEnd
            };
        }
        headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok())
            .map_or(Self::UntilEnd, Self::Length)
    }

    fn is_complete(self, raw: &[u8]) -> bool {
        match self {
            Self::Length(len) => raw.len() as u64 >= len,
            // Good enough to stop early: a chunk that ends like this costs the rest of an explanation.
            Self::Chunked => raw.ends_with(b"0\r\n\r\n"),
            Self::UntilEnd => false,
        }
    }
}

/// The content of the chunks so far.
fn dechunk(mut raw: &[u8]) -> BytesMut {
    let mut body = BytesMut::new();
    while let Ok(httparse::Status::Complete((at, size))) = httparse::parse_chunk_size(raw) {
        if size == 0 {
            break;
        }
        let Some(rest) = raw.get(at..) else { break };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        body.extend_from_slice(rest.get(..size).unwrap_or(rest));
        match rest.get(size..) {
            // The line end behind the chunk.
            Some(next) if next.len() >= 2 => {
                raw = next;
                raw.advance(2);
            }
            _ => break,
        }
    }
    body
}

/// Where the head ends that is begun in these bytes: behind its empty line.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    const EMPTY_LINE: &[u8] = b"\r\n\r\n";
    let mut from = 0;
    // By its last byte a window says how far it is from one that could be it: mostly as far as it is long.
    while let Some(last) = bytes.get(from + 3) {
        let end = from + EMPTY_LINE.len();
        from += match last {
            b'\n' if bytes.get(from..end) == Some(EMPTY_LINE) => return Some(end),
            b'\n' => 2,
            b'\r' => 1,
            _ => EMPTY_LINE.len(),
        };
    }
    None
}

/// Whether the first bytes can still become `HTTP/1.`: so that a peer speaking something else is found out at
/// its first byte and not at the deadline.
fn could_be_http(buffer: &[u8]) -> bool {
    let start = b"HTTP/1.";
    buffer
        .iter()
        .zip(start)
        .all(|(byte, expected)| byte == expected)
}

fn parse_head<T>(
    bytes: &[u8],
    take: impl Fn(&Head<'_>) -> Result<T, HeadError>,
) -> Result<T, HeadError> {
    let mut parsed = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut parsed) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(HeadError::Malformed),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLong),
        Err(_) => return Err(HeadError::Malformed),
    }
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(HeadError::Malformed)?;
    take(&Head {
        status,
        headers: response.headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_where_the_first_empty_line_ends() {
        const LEN: u32 = 9;
        for number in 0..3_usize.pow(LEN) {
            let byte = |at: u32| b"\r\nx"[number / 3_usize.pow(at) % 3];
            let bytes: Vec<u8> = (0..LEN).map(byte).collect();
            let naive = bytes.windows(4).position(|window| window == b"\r\n\r\n");
            assert_eq!(end_of_head(&bytes), naive.map(|at| at + 4), "{bytes:?}");
        }
        assert_eq!(end_of_head(b"\n\r\n"), None);
    }
}
