//! WebSocket byte transport on tokio-tungstenite and rustls: dialling, proxies, TLS, upgrade, back-pressure.
