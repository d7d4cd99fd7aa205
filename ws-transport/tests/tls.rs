//! TLS that works, and TLS that must not.
#![cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]

mod common;

use common::{
    echo, endpoint, request, serve,
    tls::{Authority, acceptor},
};
use ws_transport::{BaseRoots, Connector, TlsConfig};

fn trusting(authority: &Authority) -> Connector {
    let tls = TlsConfig::builder()
        .base_roots(BaseRoots::None)
        .add_roots_pem(authority.pem())
        .build()
        .unwrap();
    Connector::new().tls(tls)
}

#[tokio::test]
async fn bytes_go_out_and_come_back_over_wss() {
    let authority = Authority::new("ours");
    let acceptor = acceptor(&authority.server("localhost"));
    let (address, _server) = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                echo(stream).await;
            }
        }
    })
    .await;
    let mut socket = trusting(&authority)
        .connect(&endpoint("wss", address), &request())
        .await
        .unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap(), "hello");
    socket.close().await;
}
