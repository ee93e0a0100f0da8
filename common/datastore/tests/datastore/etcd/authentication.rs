//! Users and passwords.

use std::time::{Duration, Instant};

use etcd_client::{Permission, PermissionType};
use weir_common::datastore::{Datastore, Error, EtcdConfiguration, Selection};
use weir_datastore::Etcd;

use super::cause;
use super::server::Server;
use crate::suite::{put, transaction, value};

/// An etcd where `weir` may use `/calico/` and nothing else, and `reader` may only read there.
async fn server_with_users() -> Server {
    let server = Server::start();
    let mut auth = server.client().await.auth_client();
    auth.user_add("root", "of all", None).await.unwrap();
    auth.role_add("root").await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.user_add("weir", "s3cret", None).await.unwrap();
    auth.role_add("calico").await.unwrap();
    let permission = Permission::new(PermissionType::Readwrite, "/calico/").with_prefix();
    auth.role_grant_permission("calico", permission).await.unwrap();
    auth.user_grant_role("weir", "calico").await.unwrap();
    auth.user_add("reader", "s3cret", None).await.unwrap();
    auth.role_add("reader").await.unwrap();
    let permission = Permission::new(PermissionType::Read, "/calico/").with_prefix();
    auth.role_grant_permission("reader", permission).await.unwrap();
    auth.user_grant_role("reader", "reader").await.unwrap();
    auth.auth_enable().await.unwrap();
    server
}

async fn open(server: &Server, credentials: Option<(&str, &str)>) -> Etcd {
    open_at(vec![server.url()], credentials).await
}

async fn open_at(urls: Vec<String>, credentials: Option<(&str, &str)>) -> Etcd {
    let configuration = EtcdConfiguration {
        credentials: credentials.map(|(user, password)| (user.to_owned(), password.to_owned())),
        ..EtcdConfiguration::new(urls)
    };
    Etcd::open(&configuration).await.unwrap()
}

fn assert_denied<T: std::fmt::Debug>(result: Result<T, Error>, reason: &str) {
    match result {
        Err(error @ Error::Denied { .. }) => {
            let cause = cause(&error);
            assert!(cause.contains(reason), "{cause}");
            assert!(!format!("{error:?}{error}{cause}").contains("s3cret"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_user_does_what_he_may() {
    let server = server_with_users().await;
    let store = open(&server, Some(("weir", "s3cret"))).await;
    let revision = put(&store, &[("/calico/a", "1")]).await;
    assert_eq!(value(&store, "/calico/a").await.as_deref(), Some("1"));
    let prefixes = ["/calico/a".to_owned(), "/calico/b".to_owned()];
    let mut watch = store.watch(&prefixes, revision).await.unwrap();
    let next = put(&store, &[("/calico/b", "2")]).await;
    assert_eq!(watch.next().await.unwrap()[0].revision(), next);

    store.check_writable().await.unwrap();

    let everything = [Selection::Prefix(String::new())];
    let watch = store.watch(&["/".to_owned()], revision).await.map(|_| ());
    for error in [
        store.get("/secret").await.unwrap_err(),
        store.read(&everything).await.unwrap_err(),
        store.list("/", None, 10).await.unwrap_err(),
        watch.unwrap_err(),
    ] {
        let told = error.to_string();
        assert!(matches!(error, Error::NotPermitted { .. }), "{error:?}");
        assert!(told.contains("user \"weir\" may not read these keys"), "{told}");
        assert!(told.ends_with("grant-permission ROLE --prefix=true read /calico/"), "{told}");
    }
}

#[tokio::test]
async fn a_user_who_may_only_read_learns_that_before_writing() {
    let server = server_with_users().await;
    let store = open(&server, Some(("reader", "s3cret"))).await;
    assert_eq!(store.get("/calico/a").await.unwrap(), None);
    let create = transaction(|it| {
        it.create("/calico/a".to_owned(), vec![]);
    });
    for result in [store.check_writable().await, store.commit(create).await.map(|_| ())] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NotPermitted { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "datastore {} does not permit it: user \"reader\" may not write these keys \
                 (etcdserver: permission denied); grant it to a role of that user: etcdctl role \
                 grant-permission ROLE --prefix=true readwrite /calico/",
                server.url()
            )
        );
    }
    // Anonymous and unknown users learn it as well.
    let anonymous = open(&server, None).await;
    assert_denied(anonymous.check_writable().await, "etcd wants a user and none is configured");
}

/// What an ADD of one node and one IP version writes each time is enough.
#[tokio::test]
async fn a_user_with_a_narrow_role_may_write() {
    let server = server_with_users().await;
    let mut auth = root(&server).await.auth_client();
    for family in ["ipv4", "ipv6"] {
        auth.user_add(family, "s3cret", None).await.unwrap();
        auth.role_add(family).await.unwrap();
        let grant = async |auth: &mut etcd_client::AuthClient, key: &str| {
            let permission = Permission::new(PermissionType::Readwrite, key).with_prefix();
            auth.role_grant_permission(family, permission).await.unwrap();
        };
        grant(&mut auth, "/calico/ipam/v2/host/n1/").await;
        grant(&mut auth, "/calico/ipam/v2/handle/").await;
        auth.user_grant_role(family, family).await.unwrap();
        let store = open(&server, Some((family, "s3cret"))).await;
        let refused = store.check_writable().await.unwrap_err();
        assert!(matches!(refused, Error::NotPermitted { .. }), "no block: {refused:?}");
        grant(&mut auth, &format!("/calico/ipam/v2/assignment/{family}/block/")).await;
        store.check_writable().await.unwrap();
    }
}

/// The probe of the other endpoint is made without logging in.
#[tokio::test]
async fn a_hung_endpoint_is_passed_over_with_a_password() {
    let (hung, server) = (server_with_users().await, server_with_users().await);
    hung.hang();
    let urls = vec![hung.url(), server.url()];
    let started = Instant::now();
    let store = open_at(urls.clone(), Some(("weir", "s3cret"))).await;
    let revision = put(&store, &[("/calico/a", "1")]).await;
    assert!(store.watch(&["/calico/".to_owned()], revision).await.is_ok());
    let wrong = open_at(urls, Some(("weir", "s3cret but wrong"))).await;
    assert_denied(wrong.read(&[]).await, "authentication failed");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn wrong_credentials_are_denied() {
    let server = server_with_users().await;
    for (user, password) in [("weir", "s3cret but wrong"), ("nobody", "s3cret")] {
        let store = open(&server, Some((user, password))).await;
        assert_denied(store.read(&[]).await, "authentication failed");
    }
    let anonymous = open(&server, None).await;
    assert_denied(anonymous.get("/calico/a").await, "user name is empty");
}

/// Each in one sentence, whatever asks.
#[tokio::test]
async fn what_is_missing_is_named() {
    let server = server_with_users().await;
    let url = server.url();
    let told = async |credentials, writes: bool, key: &str| {
        let store = open(&server, credentials).await;
        let error = match writes {
            true => store
                .commit(transaction(|it| {
                    it.create(key.to_owned(), vec![]);
                }))
                .await
                .unwrap_err(),
            false => store.get(key).await.unwrap_err(),
        };
        let told = weir_common::error_chain(&error);
        let (sentence, of_etcd) = told.split_once(": etcdserver: ").unwrap();
        (sentence.replace(&url, "URL"), of_etcd.to_owned())
    };
    let denied = |cause: &str| {
        format!(
            "datastore URL refused access; check user and password, or, for a file, who may \
                 read and write it: {cause}"
        )
    };
    for writes in [false, true] {
        for _ in 0..5 {
            let (sentence, _) = told(None, writes, "/calico/a").await;
            assert_eq!(
                sentence,
                denied(
                    "etcd wants a user and none is configured; set etcd_username and etcd_password"
                )
            );
            let (sentence, _) = told(Some(("weir", "guess")), writes, "/calico/a").await;
            assert_eq!(
                sentence,
                denied(
                    "etcd knows no user \"weir\" with this password; correct etcd_username or \
                 etcd_password"
                )
            );
        }
    }
}

/// Whatever makes etcd refuse a token that it gave.
#[tokio::test]
async fn a_refused_token_is_replaced() {
    let server = server_with_users().await;
    let store = open(&server, Some(("weir", "s3cret"))).await;
    let first = put(&store, &[("/calico/a", "1")]).await;
    let mut auth = root(&server).await.auth_client();
    // A change of the users makes tokens from before it too old for writing.
    auth.user_add("another", "x", None).await.unwrap();
    let second = put(&store, &[("/calico/a", "2")]).await;
    assert!(second > first);
    // Without authentication, etcd forgets all tokens, as when it restarts.
    for round in 0..3 {
        auth.auth_disable().await.unwrap();
        server.client().await.auth_enable().await.unwrap();
        auth = root(&server).await.auth_client();
        match round {
            0 => assert_eq!(value(&store, "/calico/a").await.as_deref(), Some("2")),
            1 => assert!(put(&store, &[("/calico/a", "3")]).await > second),
            _ => {
                let mut watch = store.watch(&["/calico/".to_owned()], first).await.unwrap();
                assert_eq!(watch.next().await.unwrap()[0].revision(), second);
            }
        }
    }
}

async fn root(server: &Server) -> etcd_client::Client {
    let options = etcd_client::ConnectOptions::new().with_user("root", "of all");
    etcd_client::Client::connect([server.url()], Some(options)).await.unwrap()
}

#[tokio::test]
async fn credentials_that_are_not_asked_for_do_no_harm() {
    let server = Server::start();
    let store = open(&server, Some(("weir", "s3cret"))).await;
    put(&store, &[("/calico/a", "1")]).await;
    assert_eq!(value(&store, "/calico/a").await.as_deref(), Some("1"));
}
