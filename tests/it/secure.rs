//! A Kafka as production has it: TLS, SCRAM or tokens, and nothing allowed but what `kafka::rights` lists. One node for
//! all of it, since each takes a Java.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use devstack::{Acl, Kafka, KafkaOptions, Users};
use futures_util::future::join_all;
use kafka::SoleWriter;
use kafka::rights::{self, Kind, Operation, Pattern, Right, Role};
use serde_json::json;

use crate::house::House;
use crate::support::{LONG, Service, wait_for, wait_until};

/// What shows who a role is: its password, and its secret at whoever gives tokens.
fn secret(role: Role) -> String {
    format!("secret-of-{role}-7f3a")
}

/// The node, and a house whose processes go to its guarded listener. What the tests themselves look at goes by the
/// other one, where everybody is a super user.
struct Fort {
    house: Arc<House>,
    kafka: Mutex<Kafka>,
    tokens: String,
    secure: devstack::Secure,
}

impl Fort {
    async fn build() -> Self {
        let users = Role::ALL.map(|role| (role.to_string(), secret(role)));
        let options =
            KafkaOptions { own: true, short_lived: true, secure: Some(Users(users.into())), ..KafkaOptions::default() };
        let kafka = tokio::task::spawn_blocking(move || Kafka::start(&options).unwrap()).await.unwrap();
        let house = House::with("secure", &[("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap())]).await;
        let secure = kafka.secure().unwrap().clone();
        let fort = Self { house, kafka: Mutex::new(kafka), tokens: token_server().await, secure };
        for role in Role::ALL {
            fort.grant(role, &fort.rights(role));
        }
        fort
    }

    /// What a role has to be allowed here.
    fn rights(&self, role: Role) -> Vec<Right> {
        rights::of(role, self.house.place.prefix())
    }

    fn grant(&self, role: Role, rights: &[Right]) {
        self.kafka.lock().unwrap().grant(&acls(role, rights)).unwrap();
    }

    fn revoke(&self, role: Role, rights: &[Right]) {
        self.kafka.lock().unwrap().revoke(&acls(role, rights)).unwrap();
    }

    /// How a role says who it is: by a token, or by its password.
    fn settings(&self, role: Role, by_token: bool) -> BTreeMap<String, String> {
        let mut settings = vec![
            ("KAFKA_BOOTSTRAP_SERVERS", self.secure.bootstrap()),
            ("MAILTIDE_KAFKA_SECURITY_PROTOCOL", "sasl_ssl".to_owned()),
            ("MAILTIDE_KAFKA_TLS_CA", self.secure.ca().display().to_string()),
        ];
        settings.extend(if by_token {
            vec![
                ("MAILTIDE_KAFKA_SASL_MECHANISM", "OAUTHBEARER".to_owned()),
                ("MAILTIDE_KAFKA_OAUTH_TOKEN_URL", self.tokens.clone()),
                ("MAILTIDE_KAFKA_OAUTH_CLIENT_ID", role.to_string()),
                ("MAILTIDE_KAFKA_OAUTH_CLIENT_SECRET", secret(role)),
            ]
        } else {
            vec![
                ("MAILTIDE_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512".to_owned()),
                ("MAILTIDE_KAFKA_SASL_USERNAME", role.to_string()),
                ("MAILTIDE_KAFKA_SASL_PASSWORD", secret(role)),
            ]
        });
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A process that is this role.
    fn process(&self, name: &str, role: Role, by_token: bool, arguments: &[&str]) -> Service {
        // However long this test takes to give a right back, the lane is not given up meanwhile.
        let process = self.house.place.service(name, arguments).set("MAILTIDE_LANE_MAX_FAILURES", "1000");
        let settings = self.house.settings().clone().into_iter().chain(self.settings(role, by_token));
        settings.fold(process, |process, (name, value)| process.set(&name, value))
    }

    /// The Kafka settings of a role, changed a little.
    fn kafka(&self, role: Role, changes: &[(&str, &str)]) -> kafka::Settings {
        let mut settings = self.house.settings().clone();
        settings.extend(self.settings(role, false));
        settings.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut source = runtime::settings::Source::from_parts(None, settings);
        kafka::Settings::read(&mut source)
    }

    /// What a role is told that it lacks.
    async fn lacking(&self, role: Role) -> Vec<Right> {
        match rights::check(&self.kafka(role, &[]), role).await {
            Ok(()) => Vec::new(),
            Err(rights::Error::Lacking { lacking, .. }) => lacking,
            Err(error) => panic!("{role}: {error}"),
        }
    }

    /// Waits until the node goes by what was granted and taken away.
    async fn lacks(&self, role: Role, expected: &[Right]) {
        wait_until(LONG, &format!("{role} is told that it lacks {expected:?}"), || async {
            self.lacking(role).await == expected
        })
        .await;
    }
}

fn acls(role: Role, rights: &[Right]) -> Vec<Acl> {
    let acl = |right: &Right| Acl {
        principal: format!("User:{role}"),
        resource: right.kind.to_string(),
        name: right.name.clone(),
        is_prefix: right.pattern == Pattern::Prefixed,
        operation: right.operation.to_string(),
    };
    rights.iter().map(acl).collect()
}

/// Gives whoever knows a role's secret a token that says so, good for half a minute.
async fn token_server() -> String {
    let give = post(|headers: HeaderMap| async move {
        let basic = |role| format!("Basic {}", STANDARD.encode(format!("{role}:{}", secret(role))));
        let Some(role) = Role::ALL.into_iter().find(|role| headers["authorization"] == basic(*role)) else {
            return Err(axum::http::StatusCode::UNAUTHORIZED);
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let encode = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let claims = json!({"sub": role.name(), "iat": now, "exp": now + 30});
        let token = format!("{}.{}.", encode(json!({"alg": "none"})), encode(claims));
        Ok(axum::Json(json!({"access_token": token, "token_type": "Bearer", "expires_in": 30})))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/token", give)).await.unwrap() });
    url
}

/// A right by what it is for.
fn right(fort: &Fort, role: Role, kind: Kind, operation: Operation, name: &str) -> Right {
    let name = format!("{}{name}", fort.house.place.prefix());
    let all = fort.rights(role);
    let found = all.into_iter().find(|it| it.kind == kind && it.operation == operation && it.name == name);
    found.unwrap_or_else(|| panic!("{role} has {operation} on {kind} {name}"))
}

/// Everything works with exactly the rights that are listed, and each one that is missing is named.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_listed_rights_are_enough_and_each_missing_one_is_named() {
    let fort = Fort::build().await;
    let house = &fort.house;
    for role in Role::ALL {
        fort.lacks(role, &[]).await;
    }

    distrust_is_told(&fort).await;

    let mut operator = fort.process("operator", Role::Operator, false, &["topics", "create"]);
    assert_eq!(operator.start().ended().await, 0, "{}", operator.log());
    // Now that the topics are there, the brokers tell what may be done with them.
    every_missing_right_is_named(&fort).await;

    let mut ingress = fort.process("ingress", Role::Ingress, false, &["ingress"]);
    let mut poller = fort.process("poller", Role::Poller, false, &["poller"]);
    let mut scheduler = fort.process("scheduler", Role::Scheduler, false, &["scheduler"]);
    // Those that ask the brokers in every way there is say who they are by tokens.
    let mut fetcher = fort.process("fetcher", Role::Fetcher, true, &["fetcher"]);
    let mut projector = fort.process("projector", Role::Projector, true, &["projector"]);
    let all = [&mut ingress, &mut poller, &mut scheduler, &mut fetcher, &mut projector];
    join_all(all.map(|service| async { service.start().ready().await.id() })).await;
    house.api_is_at(&ingress.logged("API open", "address").await);

    let mailbox = house.mailbox("a").await;
    mailbox.deliver(5);
    house.sync(&mailbox).await;
    wait_until(LONG, "all messages are fetched", || async {
        house.committed("gmail.message.fetched").await.len() == 5
    })
    .await;

    a_lane_that_is_denied_says_what_it_lacks_and_goes_on(&fort, &mut poller).await;
    requests_are_refused_while_their_commands_are(&fort, &mut ingress).await;
    house.assert_clean().await;

    for service in [&mut ingress, &mut poller, &mut scheduler, &mut fetcher, &mut projector] {
        let log = service.log();
        assert!(Role::ALL.iter().all(|role| !log.contains(&secret(*role))), "a secret is in a log");
        assert_eq!(service.stop(), 0, "{log}");
    }
    services_without_a_right_end_and_name_it(&fort).await;
}

/// A wrong password, a wrong name, a broker that nobody vouches for, a token that is not given: each is told as what it
/// is, soon, and by code 1. What the settings themselves show is told by code 2.
async fn distrust_is_told(fort: &Fort) {
    let distrusted = async |changes: &[(&str, &str)], said: &str| {
        let error = rights::check(&fort.kafka(Role::Poller, changes), Role::Poller).await.unwrap_err();
        assert!(matches!(error, rights::Error::Unauthenticated { .. }), "{changes:?}: {error}");
        let error = error.to_string();
        assert!(error.contains(said) && !error.contains("wrong-password"), "{changes:?}: {error}");
    };
    distrusted(&[("MAILTIDE_KAFKA_SASL_PASSWORD", "wrong-password")], "User:poller").await;
    distrusted(&[("MAILTIDE_KAFKA_SASL_USERNAME", "nobody")], "User:nobody").await;
    distrusted(&[("MAILTIDE_KAFKA_SASL_MECHANISM", "SCRAM-SHA-256")], "SCRAM-SHA-256").await;
    // The system's authorities did not sign this certificate.
    distrusted(&[("MAILTIDE_KAFKA_TLS_CA", "")], "certificate").await;

    let refused = |name: &str| fort.process(name, Role::Scheduler, true, &["scheduler"]);
    let mut unknown = refused("unknown").set("MAILTIDE_KAFKA_OAUTH_CLIENT_SECRET", "wrong-password");
    assert_eq!(unknown.start().ended().await, 1, "{}", unknown.log());
    assert!(unknown.log().contains("gave no token: 401"), "{}", unknown.log());
    let mut contradicting = refused("contradicting").set("MAILTIDE_KAFKA_SASL_MECHANISM", "GSSAPI");
    assert_eq!(contradicting.start().ended().await, 2, "{}", contradicting.log());
    assert!(contradicting.log().contains("kafka.sasl_mechanism"), "{}", contradicting.log());
    assert!(!unknown.log().contains("wrong-password"));
}

/// Takes every right of every role away, half of them at a time, and looks what the role is told: those, and no other.
/// Whether a topic may be made, and a transactional id be had, shows only when it is tried.
async fn every_missing_right_is_named(fort: &Fort) {
    let each = Role::ALL.map(|role| async move {
        let asked =
            |it: &Right| it.kind != Kind::TransactionalId && it.operation != Operation::Create && it.name != "*";
        let all: Vec<Right> = fort.rights(role).into_iter().filter(asked).collect();
        for half in [0, 1] {
            let taken: Vec<Right> = all.iter().skip(half).step_by(2).cloned().collect();
            fort.revoke(role, &taken);
            fort.lacks(role, &taken).await;
            fort.grant(role, &taken);
            fort.lacks(role, &[]).await;
        }
    });
    join_all(each).await;
}

/// A poller that may not write any more, or not under its transactional id, says so and loses nothing.
async fn a_lane_that_is_denied_says_what_it_lacks_and_goes_on(fort: &Fort, poller: &mut Service) {
    let house = &fort.house;
    let mailbox = house.mailbox("denied").await;
    house.sync(&mailbox).await;
    let topic = right(fort, Role::Poller, Kind::Topic, Operation::Write, "gmail.message.discovered");
    fort.revoke(Role::Poller, std::slice::from_ref(&topic));
    fort.lacks(Role::Poller, std::slice::from_ref(&topic)).await;
    mailbox.deliver(3);
    let job = house.ask(&mailbox).await;
    let told = format!("User:poller lacks at {}: {topic}", fort.secure.bootstrap());
    wait_until(LONG, "the poller says what it lacks", || async { poller.log().contains(&told) }).await;
    let address = poller.logged("Admin port open", "address").await;
    let ready = wait_for(LONG, "the poller is not ready, and says why", || async {
        let answer = reqwest::get(format!("http://{address}/readyz")).await.ok()?.text().await.ok()?;
        answer.contains("lacks").then_some(answer)
    })
    .await;
    assert!(ready.contains(&topic.to_string()), "{ready}");
    fort.grant(Role::Poller, std::slice::from_ref(&topic));
    assert_eq!(house.ended(&job).await["state"], "succeeded");
}

/// An ingress that may not write any more accepts nothing, says so, and accepts again when it may.
async fn requests_are_refused_while_their_commands_are(fort: &Fort, ingress: &mut Service) {
    let house = &fort.house;
    let mailbox = house.mailbox("refused").await;
    let topic = right(fort, Role::Ingress, Kind::Topic, Operation::Write, "gmail.connection.poll");
    fort.revoke(Role::Ingress, std::slice::from_ref(&topic));
    fort.lacks(Role::Ingress, std::slice::from_ref(&topic)).await;
    let path = format!("/gmail-connections/{}/sync", mailbox.id);
    let answer = house.request(reqwest::Method::POST, &path).send().await.unwrap();
    assert_eq!(answer.status(), reqwest::StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    let told = format!("User:ingress lacks {topic}");
    wait_until(LONG, "ingress says what it lacks", || async { ingress.log().contains(&told) }).await;
    fort.grant(Role::Ingress, std::slice::from_ref(&topic));
    let job = house.ask_until_accepted(&mailbox).await;
    assert_eq!(house.ended(&job).await["state"], "succeeded");
}

/// One service after the other is started without one of its rights.
async fn services_without_a_right_end_and_name_it(fort: &Fort) {
    let cases = [
        (Role::Ingress, Kind::Topic, Operation::Write, "gmail.connection.poll"),
        (Role::Scheduler, Kind::Topic, Operation::Read, "gmail.job.status"),
        (Role::Fetcher, Kind::Group, Operation::Read, "fetcher"),
        (Role::Projector, Kind::Topic, Operation::Read, "gmail.connection.status"),
    ];
    let each = cases.map(|(role, kind, operation, name)| async move {
        let taken = right(fort, role, kind, operation, name);
        fort.revoke(role, std::slice::from_ref(&taken));
        fort.lacks(role, std::slice::from_ref(&taken)).await;
        let mut service = fort.process(&format!("{role}-without"), role, false, &[role.name()]);
        assert_eq!(service.start().ended().await, 1, "{}", service.log());
        let told = format!("User:{role} lacks at {}: {taken}", fort.secure.bootstrap());
        assert!(service.log().contains(&told), "{told} is not in\n{}", service.log());
    });
    join_all(each).await;

    let taken = right(fort, Role::Poller, Kind::TransactionalId, Operation::Write, "poller-");
    fort.revoke(Role::Poller, std::slice::from_ref(&taken));
    // Brokers tell of a transactional id only when it is asked for.
    wait_until(LONG, "the node goes by that", || async {
        let settings = fort.kafka(Role::Poller, &[]);
        tokio::task::spawn_blocking(move || SoleWriter::take_over(&settings, "poller-probe").is_err()).await.unwrap()
    })
    .await;
    let mut poller = fort.process("poller-without", Role::Poller, false, &["poller"]);
    poller.start();
    let id = format!("Write on TransactionalId {}poller-poller-without-0", fort.house.place.prefix());
    wait_until(LONG, "the poller says what it lacks", || async { poller.log().contains(&id) }).await;
    fort.grant(Role::Poller, std::slice::from_ref(&taken));
    poller.ready().await;
    assert_eq!(poller.stop(), 0);
}
