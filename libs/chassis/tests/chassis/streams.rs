//! Streams of Redis: consumers that lose nothing, and readers that follow.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis::streams::{Consumer, Contact, HandleError, Handler, Message, publish, replay, tail};
use testkit::{TestRedis, eventually};
use tokio_util::sync::{CancellationToken, DropGuard};

const STREAM: &str = "stream";

/// Takes down what it handled. What is called `bad` is rejected until it is allowed, and nothing is handled during an outage.
#[derive(Clone, Default)]
struct Notes {
    handled: Arc<Mutex<Vec<String>>>,
    allow_bad: Arc<AtomicBool>,
    /// Deliveries that are still refused for an outage.
    outage: Arc<AtomicU32>,
}

impl Handler for Notes {
    async fn handle(&self, batch: &[Message]) -> Result<(), HandleError> {
        if self.outage.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(HandleError::Unavailable(anyhow::anyhow!("the database is away")));
        }
        if !self.allow_bad.load(Ordering::SeqCst) && batch.iter().any(|message| message.field("text") == "bad") {
            return Err(HandleError::Rejected(anyhow::anyhow!("this one is bad")));
        }
        self.handled.lock().unwrap().extend(batch.iter().map(|message| message.field("text").to_owned()));
        Ok(())
    }
}

impl Notes {
    fn sorted(&self) -> Vec<String> {
        let mut notes = self.handled.lock().unwrap().clone();
        notes.sort();
        notes
    }

    async fn reach(&self, expected: &[&str]) {
        eventually("all messages", || async { (self.sorted() == expected).then_some(()) }).await;
    }
}

fn consumer(name: &str) -> Consumer {
    Consumer {
        stream: STREAM.into(),
        group: "group",
        name: name.into(),
        batch: 10,
        claim_after: Duration::ZERO,
        max_deliveries: 3,
        delete_acknowledged: true,
    }
}

fn consume(redis: &TestRedis) -> (Notes, DropGuard) {
    consume_with(redis, Notes::default())
}

fn consume_with(redis: &TestRedis, notes: Notes) -> (Notes, DropGuard) {
    let stop = CancellationToken::new();
    let (handler, connection, stopped) = (notes.clone(), redis.redis.clone(), stop.clone());
    tokio::spawn(async move { consumer("one").run(&connection, &handler, &stopped).await });
    (notes, stop.drop_guard())
}

async fn send(redis: &TestRedis, text: &str) {
    publish(&redis.redis, STREAM, &[("text", text)], None).await.unwrap();
}

async fn length(redis: &TestRedis, stream: &str) -> usize {
    redis::cmd("XLEN").arg(stream).query_async(&mut redis.redis.connection()).await.unwrap()
}

#[tokio::test]
async fn what_was_sent_before_the_group_existed_is_handled_and_then_removed() {
    let redis = TestRedis::start().await;
    for text in ["a", "b", "c"] {
        send(&redis, text).await;
    }
    let (notes, _stop) = consume(&redis);
    notes.reach(&["a", "b", "c"]).await;
    eventually("an empty stream", || async { (length(&redis, STREAM).await == 0).then_some(()) }).await;
}

/// Takes down how much it was given at once.
#[derive(Clone, Default)]
struct Sizes(Arc<Mutex<Vec<usize>>>);

impl Handler for Sizes {
    async fn handle(&self, batch: &[Message]) -> Result<(), HandleError> {
        self.0.lock().unwrap().push(batch.len());
        Ok(())
    }
}

/// Redis does one command at a time: none of them may take long, however large a batch is.
#[tokio::test]
async fn a_batch_is_whole_though_each_command_reads_and_acknowledges_a_part_of_it() {
    let redis = TestRedis::start().await;
    for number in 0..450 {
        send(&redis, &number.to_string()).await;
    }
    let mut connection = redis.redis.connection();
    let () = redis::cmd("CONFIG").arg(&["RESETSTAT"]).query_async(&mut connection).await.unwrap();
    let (sizes, stop) = (Sizes::default(), CancellationToken::new());
    let _stop = stop.clone().drop_guard();
    let (handler, connected) = (sizes.clone(), redis.redis.clone());
    let large = Consumer { batch: 420, ..consumer("one") };
    tokio::spawn(async move { large.run(&connected, &handler, &stop).await });
    eventually("an empty stream", || async { (length(&redis, STREAM).await == 0).then_some(()) }).await;
    assert_eq!(*sizes.0.lock().unwrap(), [420, 30]);
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls="))).unwrap();
        line.split(',').next().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(calls("xack"), 6, "five of a hundred at most, and one");
    assert!(calls("xreadgroup") > 5);
}

/// What others read too stays on the stream: how much is there says nothing about how far this group is.
#[tokio::test]
async fn the_lag_of_a_stream_that_is_kept_is_what_the_group_has_not_handled() {
    let redis = TestRedis::start().await;
    let lag = || {
        let text = chassis::telemetry::render_metrics();
        text.lines().find_map(|line| line.strip_prefix("stream_lag_messages{stream=\"kept\"} ")).map(str::to_owned)
    };
    assert_eq!(lag(), None);
    for text in ["a", "b", "bad"] {
        publish(&redis.redis, "kept", &[("text", text)], None).await.unwrap();
    }
    let (notes, stop) = (Notes::default(), CancellationToken::new());
    let _stop = stop.clone().drop_guard();
    let kept = Consumer { stream: "kept".into(), delete_acknowledged: false, max_deliveries: usize::MAX, ..consumer("one") };
    let (handler, connection) = (notes.clone(), redis.redis.clone());
    tokio::spawn(async move { kept.run(&connection, &handler, &stop).await });
    notes.reach(&["a", "b"]).await;
    notes.allow_bad.store(true, Ordering::SeqCst);
    notes.reach(&["a", "b", "bad"]).await;
    eventually("nothing is left to handle", || async { (lag().as_deref() == Some("0")).then_some(()) }).await;
    assert_eq!(length(&redis, "kept").await, 3);
}

#[tokio::test]
async fn what_a_dead_member_had_taken_is_taken_over() {
    let redis = TestRedis::start().await;
    send(&redis, "left behind").await;
    let mut connection = redis.redis.connection();
    let () = redis::cmd("XGROUP").arg(&["CREATE", STREAM, "group", "0"]).query_async(&mut connection).await.unwrap();
    let read = ["GROUP", "group", "dead", "STREAMS", STREAM, ">"];
    let _taken: redis::streams::StreamReadReply = redis::cmd("XREADGROUP").arg(&read).query_async(&mut connection).await.unwrap();
    let (notes, _stop) = consume(&redis);
    notes.reach(&["left behind"]).await;
}

#[tokio::test]
async fn a_message_that_fails_each_time_is_set_aside_with_its_reason_and_holds_nobody_up() {
    let redis = TestRedis::start().await;
    for text in ["a", "bad", "b"] {
        send(&redis, text).await;
    }
    let (notes, _stop) = consume(&redis);
    eventually("the dead letter", || async { (length(&redis, "stream:dead").await == 1).then_some(()) }).await;
    notes.reach(&["a", "b"]).await;
    send(&redis, "c").await;
    notes.reach(&["a", "b", "c"]).await;
    let dead: redis::streams::StreamRangeReply =
        redis::cmd("XRANGE").arg("stream:dead").arg("-").arg("+").query_async(&mut redis.redis.connection()).await.unwrap();
    assert_eq!(dead.ids[0].get::<String>("text").as_deref(), Some("bad"));
    assert_eq!(dead.ids[0].get::<String>("dead_reason").as_deref(), Some("this one is bad"));
    notes.allow_bad.store(true, Ordering::SeqCst);
    assert_eq!(replay(&redis.redis, STREAM).await.unwrap(), 1);
    notes.reach(&["a", "b", "bad", "c"]).await;
    assert_eq!(length(&redis, "stream:dead").await, 0);
}

#[tokio::test]
async fn an_outage_that_outlasts_every_limit_of_deliveries_sets_nothing_aside() {
    let redis = TestRedis::start().await;
    for text in ["a", "b"] {
        send(&redis, text).await;
    }
    let (notes, _stop) = consume_with(&redis, Notes { outage: Arc::new(AtomicU32::new(12)), ..Notes::default() });
    notes.reach(&["a", "b"]).await;
    assert_eq!(notes.outage.load(Ordering::SeqCst), 0, "the outage was not met");
    assert_eq!(length(&redis, "stream:dead").await, 0);
}

#[tokio::test]
async fn a_redis_that_crashes_or_loses_everything_is_survived() {
    let mut redis = TestRedis::start().await;
    let (notes, _stop) = consume(&redis);
    send(&redis, "a").await;
    notes.reach(&["a"]).await;
    // What was handled and not acknowledged comes again, and is noted twice.
    eventually("it is acknowledged", || async { (length(&redis, STREAM).await == 0).then_some(()) }).await;
    redis.kill();
    redis.restart().await.unwrap();
    send(&redis, "b").await;
    notes.reach(&["a", "b"]).await;
    let () = redis::cmd("FLUSHALL").query_async(&mut redis.redis.connection()).await.unwrap();
    send(&redis, "c").await;
    notes.reach(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn a_follower_sees_everything_from_when_it_began_and_knows_when_it_last_heard() {
    let mut redis = TestRedis::start().await;
    send(&redis, "a").await;
    let (seen, contact, stop) = (Arc::new(Mutex::new(Vec::new())), Contact::default(), CancellationToken::new());
    assert!(!contact.within(Duration::from_hours(1)), "heard before it began");
    let (notes, connection, heard, stopped) = (Arc::clone(&seen), redis.redis.clone(), contact.clone(), stop.clone());
    tokio::spawn(async move {
        tail(&connection, STREAM, Duration::from_mins(1), &heard, &stopped, |message| {
            notes.lock().unwrap().push(message.field("text").to_owned());
        })
        .await;
    });
    let reach = |expected: Vec<&'static str>| {
        let seen = Arc::clone(&seen);
        async move { eventually("what was sent", || async { (*seen.lock().unwrap() == expected).then_some(()) }).await }
    };
    reach(vec!["a"]).await;
    send(&redis, "b").await;
    reach(vec!["a", "b"]).await;
    redis.kill();
    eventually("silence", || async { (!contact.within(Duration::from_millis(800))).then_some(()) }).await;
    redis.restart().await.unwrap();
    eventually("contact again", || async { contact.within(Duration::from_millis(800)).then_some(()) }).await;
    send(&redis, "c").await;
    reach(vec!["a", "b", "c"]).await;
    stop.cancel();
}
