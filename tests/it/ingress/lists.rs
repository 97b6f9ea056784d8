//! Lists of jobs, page by page.

use domain::{GmailJobStatusChanged, JobState, Timestamp, Trigger};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::api::{Api, assert_problem, database, now, tenant};
use super::facts::{self, fact, project};

async fn page(api: &Api, path: &str) -> Value {
    let answer = api.request(Method::GET, path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json().await.unwrap()
}

fn ids(page: &Value) -> Vec<String> {
    page["data"].as_array().unwrap().iter().map(|job| job["jobId"].as_str().unwrap().to_owned()).collect()
}

/// All pages of a list, `between` them something else.
async fn walk(api: &Api, list: &str, limit: usize, mut between: impl AsyncFnMut()) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = None::<String>;
    loop {
        let next = cursor.map_or_else(String::new, |cursor| format!("&Cursor={cursor}"));
        let page = page(api, &format!("{list}{}Limit={limit}{next}", if list.contains('?') { '&' } else { '?' })).await;
        let shown = ids(&page);
        assert!(shown.len() <= limit);
        all.extend(shown);
        assert_eq!(page["hasMore"], Value::Bool(page["nextCursor"].is_string()), "{page}");
        match page["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return all,
        }
        between().await;
    }
}

/// Newest first, by id where the time is the same.
fn expected(jobs: &[GmailJobStatusChanged], which: impl Fn(&GmailJobStatusChanged) -> bool) -> Vec<String> {
    let mut jobs: Vec<_> = jobs.iter().filter(|job| which(job)).collect();
    jobs.sort_by_key(|job| std::cmp::Reverse((job.requested_at, job.job_id)));
    jobs.iter().map(|job| job.job_id.to_string()).collect()
}

/// Jobs of two connections, some of the same instant, in every state and of several triggers.
fn some(api: &Api, other: domain::ConnectionId) -> Vec<GmailJobStatusChanged> {
    let states = [JobState::Queued, JobState::Running, JobState::Succeeded, JobState::Failed, JobState::Cancelled];
    let triggers = [Trigger::Api, Trigger::Schedule, Trigger::Backfill];
    let first = now() - domain::Duration::from_hours(2);
    (0..60)
        .map(|number| {
            let at = Timestamp::from_millis(first.as_millis() + i64::from(number / 4) * 1000);
            let mut job = fact(api, states[number as usize % 5], triggers[number as usize % 3], at);
            if number % 7 == 0 {
                job.connection_id = other;
            }
            job
        })
        .collect()
}

#[tokio::test]
async fn every_job_is_listed_once_newest_first_by_any_size_of_page_while_more_come() {
    let api = Api::start("lists").await;
    let other = domain::ConnectionId::from_uuid(Uuid::new_v4());
    let jobs = some(&api, other);
    project(&api, &jobs).await;
    let stranger = tenant(&api.store).await;
    let theirs = facts::of(stranger.organisation, api.tenant.connection, JobState::Queued, Trigger::Api, now());
    project(&api, &[theirs]).await;

    for limit in [1, 7, 59, 60, 200] {
        assert_eq!(walk(&api, "/jobs", limit, async || {}).await, expected(&jobs, |_| true), "pages of {limit}");
    }
    let mine = format!("/gmail-connections/{}/jobs", api.tenant.connection);
    let of_mine = |job: &GmailJobStatusChanged| job.connection_id == api.tenant.connection;
    assert_eq!(walk(&api, &mine, 7, async || {}).await, expected(&jobs, of_mine));

    // What comes meanwhile is newer than every page after the first.
    let first = page(&api, "/jobs?Limit=10").await;
    let seen = walk(&api, "/jobs", 10, async || {
        project(&api, &[fact(&api, JobState::Queued, Trigger::Api, now())]).await;
    })
    .await;
    assert_eq!(ids(&first), seen[..10]);
    assert_eq!(seen, expected(&jobs, |_| true));
}

#[tokio::test]
async fn a_list_is_narrowed_by_state_and_trigger() {
    let api = Api::start("filters").await;
    let jobs = some(&api, api.tenant.connection);
    project(&api, &jobs).await;
    let all = async |query: &str| walk(&api, &format!("/jobs{query}"), 5, async || {}).await;
    assert_eq!(all("?State=failed").await, expected(&jobs, |job| job.state == JobState::Failed));
    assert_eq!(
        all("?State=failed&State=running&Trigger=schedule").await,
        expected(&jobs, |job| matches!(job.state, JobState::Failed | JobState::Running)
            && job.trigger == Trigger::Schedule)
    );
    assert_eq!(all("?Trigger=push").await, Vec::<String>::new());
    let of_connection = format!("/gmail-connections/{}/jobs?state=cancelled", api.tenant.connection);
    let listed = walk(&api, &of_connection, 5, async || {}).await;
    assert_eq!(listed, expected(&jobs, |job| job.state == JobState::Cancelled));
}

/// One of a kind among very many others: pages may be empty, but each is bounded and the last one comes.
#[tokio::test]
async fn a_rare_job_is_found_by_pages_of_bounded_cost() {
    const OTHERS: i64 = 25_000;
    let api = Api::start("rare").await;
    let rare = fact(&api, JobState::Failed, Trigger::Api, now() - domain::Duration::from_days(30));
    project(&api, std::slice::from_ref(&rare)).await;
    let rows = database(&api).await;
    let fill = "INSERT INTO jobs (job_id, organisation_id, connection_id, trigger, state, rank, step, progress,
                                  requested_at, deadline, changed_at)
                SELECT gen_random_uuid(), $1, $2, 'api', 'succeeded', 2, 1, '{}', now() - n * interval '1 second',
                       now(), now()
                FROM generate_series(1, $3::bigint) n";
    let tenant = &api.tenant;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [tenant.organisation.as_uuid(), tenant.connection.as_uuid(), &OTHERS];
    rows.execute(fill, &params).await.unwrap();

    let mut pages = 0;
    let found = walk(&api, "/jobs?State=failed", 50, async || pages += 1).await;
    assert_eq!(found, [rare.job_id.to_string()]);
    assert_eq!(pages, OTHERS / 10_000, "each page looks at no more than it may");
}

/// By the planner's own word: no page reads more of the table than it shows, wherever in the list it is.
#[tokio::test]
async fn a_page_is_a_range_of_an_index() {
    let api = Api::start("plans").await;
    let rows = database(&api).await;
    rows.batch_execute(
        "INSERT INTO jobs (job_id, organisation_id, connection_id, trigger, state, rank, step, progress,
                               requested_at, deadline, changed_at)
             SELECT gen_random_uuid(), ('00000000-0000-4000-8000-00000000000' || n % 5)::uuid,
                    ('00000000-0000-4000-8000-00000000000' || n % 10)::uuid, 'api', 'succeeded', 2, 1, '{}',
                    now() - n * interval '1 second', now(), now()
             FROM generate_series(1, 20000) n;
             ANALYZE jobs",
    )
    .await
    .unwrap();
    let newest = "SELECT * FROM jobs j WHERE j.organisation_id = '00000000-0000-4000-8000-000000000001'";
    let place = "AND (j.requested_at, j.job_id) < (now() - interval '1 hour', '00000000-0000-4000-8000-000000000001')
                 ORDER BY j.requested_at DESC, j.job_id DESC LIMIT 51";
    let of_connection = "AND j.connection_id = '00000000-0000-4000-8000-000000000001'";
    for (query, index) in [
        (format!("{newest} {place}"), "jobs_newest"),
        (format!("{newest} {of_connection} {place}"), "jobs_newest_of_connection"),
    ] {
        let plan = rows.query(&format!("EXPLAIN {query}"), &[]).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(&format!("Index Scan using {index} on")), "{plan}");
        assert!(!plan.contains("Sort") && !plan.contains("Filter"), "{plan}");
    }
}

#[tokio::test]
async fn what_a_list_cannot_take_is_named() {
    let api = Api::start("bad-lists").await;
    project(&api, &some(&api, api.tenant.connection)).await;
    let whole = page(&api, "/jobs?Limit=1").await;
    let cursor = whole["nextCursor"].as_str().unwrap();
    let list = format!("/gmail-connections/{}/jobs", api.tenant.connection);
    let cut = &cursor[1..];
    let bent = format!("{}{}", &cursor[..42], if cursor.ends_with('A') { 'B' } else { 'A' });
    for (path, parameter) in [
        ("/jobs?Limit=0".to_owned(), "Limit"),
        ("/jobs?Limit=1e3".to_owned(), "Limit"),
        ("/jobs?Limit=201".to_owned(), "Limit"),
        ("/jobs?State=done".to_owned(), "State"),
        ("/jobs?Trigger=api,push".to_owned(), "Trigger"),
        ("/jobs?Cursor=".to_owned(), "Cursor"),
        ("/jobs?Cursor=%00%FF".to_owned(), "Cursor"),
        (format!("/jobs?Cursor={cut}"), "Cursor"),
        (format!("/jobs?Cursor={bent}"), "Cursor"),
        (format!("/jobs?Cursor={cursor}&Cursor={cursor}"), "Cursor"),
        // The cursor of another list.
        (format!("{list}?Cursor={cursor}"), "Cursor"),
    ] {
        let answer = api.request(Method::GET, &path).send().await.unwrap();
        let problem = assert_problem(answer, 400, "Request.QueryInvalid").await;
        assert!(problem["detail"].as_str().unwrap().contains(parameter), "{path}: {problem}");
    }
    // Nor is another organisation's taken.
    let stranger = tenant(&api.store).await;
    let answer = api.request_as(&stranger.key, Method::GET, &format!("/jobs?Cursor={cursor}")).send().await.unwrap();
    assert_problem(answer, 400, "Request.QueryInvalid").await;
    let other = format!("/gmail-connections/{}/jobs", stranger.connection);
    let answer = api.request(Method::GET, &other).send().await.unwrap();
    assert_problem(answer, 404, "Gmail.ConnectionNotFound").await;
}
