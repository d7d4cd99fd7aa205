//! A port that nobody else is given while nobody listens on it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A loopback port of one's own: a connection to it is refused until somebody listens there on purpose, by
/// [`listen`](Self::listen) or a broker that is told its number.
///
/// A port that was found free and let go may be anybody's a moment later, for a connection or a listener of another test.
/// This one is held by a socket that is bound and does not listen; who binds the same address on purpose, and sets
/// `SO_REUSEADDR` as servers do, may. (That is Linux; elsewhere the port is let go, and free only most of the time.)
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _holder: Option<TcpSocket>,
}

impl Port {
    /// A port that the system picks.
    ///
    /// # Errors
    ///
    /// When no loopback port can be bound.
    pub fn reserve() -> io::Result<Self> {
        let holder = socket((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self {
            address: holder.local_addr()?,
            _holder: cfg!(target_os = "linux").then_some(holder),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens there. In the context of a runtime.
    ///
    /// # Errors
    ///
    /// When somebody listens there already.
    pub fn listen(&self) -> io::Result<TcpListener> {
        socket(self.address)?.listen(BACKLOG)
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn it_is_refused_listened_on_and_refused_again() {
        let port = Port::reserve().unwrap();
        for _ in 0..3 {
            let error = TcpStream::connect(port.address()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            let listener = port.listen().unwrap();
            let client = TcpStream::connect(port.address()).await.unwrap();
            let accepted = listener.accept().await.unwrap();
            port.listen().unwrap_err();
            drop((client, listener, accepted));
        }
    }
}
