//! An etcd that has no space left: the alarm NOSPACE.

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, CompactionOptions};
use weir_common::datastore::{Datastore, Error, Outcome, Revision, Transaction, Write};

use super::server::Server;
use crate::suite::{put, transaction, value};

/// So much that a few values fill it.
const QUOTA: &str = "2000000";

/// Fills it up.
async fn fill(server: &Server) {
    let mut client = server.client().await;
    loop {
        if let Err(error) = client.put("/junk", vec![b'x'; 200_000], None).await {
            assert!(error.to_string().contains("database space exceeded"), "{error}");
            return;
        }
    }
}

#[tokio::test]
async fn it_is_told_before_and_while_writing_and_removing_works() {
    let server = Server::start_with("http", &["--quota-backend-bytes", QUOTA]);
    let store = server.open().await;
    let before = put(&store, &[("/calico/a", "1")]).await;
    store.check_writable().await.unwrap();
    assert_eq!(store.read(&[]).await.unwrap().revision, before, "asking changes nothing");
    fill(&server).await;
    let update = transaction(|it| {
        it.update("/calico/a".to_owned(), Revision(before.0), vec![]);
    });
    for result in [store.check_writable().await, store.commit(update).await.map(|_| ())] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Unwritable { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "datastore {} cannot be written: it is full (etcdserver: mvcc: database space \
                 exceeded); see etcdctl alarm list, make room (etcdctl compact, then etcdctl \
                 defrag on each member), and clear the alarm: etcdctl alarm disarm",
                server.url()
            )
        );
    }
    assert_eq!(value(&store, "/calico/a").await.as_deref(), Some("1"));
    let writes = vec![Write::Delete { key: "/junk".to_owned() }];
    let removed = store.commit(Transaction { compares: vec![], writes }).await.unwrap();
    let Outcome::Committed(last) = removed else { panic!("a conflict without a comparison") };
    make_room(&server, last).await;
    store.check_writable().await.unwrap();
    put(&store, &[("/calico/a", "2")]).await;
}

/// The cure as it is told.
async fn make_room(server: &Server, revision: Revision) {
    let mut client = server.client().await;
    let done = CompactionOptions::new().with_physical();
    client.compact(revision.0, Some(done)).await.unwrap();
    client.defragment().await.unwrap();
    let raised = client.alarm(AlarmAction::Get, AlarmType::Nospace, None).await.unwrap();
    for alarm in raised.alarms() {
        let mut member = AlarmOptions::new();
        member.with_member(alarm.member_id());
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(member)).await.unwrap();
    }
}
