// Google's own Node client against the simulator: calls, paging, refresh, watch.
//
// Usage: node conformance.mjs http://127.0.0.1:PORT
// Writes every body as a JSON line {method, status, body}; ../python/check.py holds them against the discovery document.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';

// The client is installed beside the build's output, not beside this file.
const { google, Auth } = createRequire(path.join(process.cwd(), 'package.json'))('googleapis');

const EMAIL = 'node@example.org';
const root = process.argv[2].replace(/\/$/, '');

async function control(where, body, { method = body === undefined ? 'GET' : 'POST', type = 'application/json' } = {}) {
  const sent = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body);
  const response = await fetch(`${root}/control/${where}`, { method, body: sent, headers: { 'content-type': type } });
  assert.ok(response.ok, `${where}: ${response.status} ${await response.clone().text()}`);
  return response.json();
}

const mailbox = (action, body = {}, options) => control(`mailboxes/${EMAIL}/${action}`, body, options);
const tell = (method, status, body) => console.log(JSON.stringify({ method, status, body }));

async function call(method, promise) {
  const response = await promise;
  tell(method, response.status, response.data);
  return response.data;
}

async function refused(promise, status, reason) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.response.status, status);
    const body = typeof error.response.data === 'string' ? JSON.parse(error.response.data) : error.response.data;
    assert.equal(body.error.errors[0].reason, reason);
    tell('error', status, body);
    return true;
  });
}

const created = await control('mailboxes', { email: EMAIL, firstHistoryId: 12_345 });
await control('tariff', {
  tariff: 'new',
  limits: { userMinute: 1e9, projectMinute: 1e9, projectDay: 1e12, concurrentPerUser: 100 },
});

const auth = new Auth.OAuth2Client({
  clientId: 'cid',
  clientSecret: 's',
  endpoints: { oauth2TokenUrl: `${root}/token`, oauth2RevokeUrl: `${root}/revoke` },
});
auth.setCredentials({ access_token: 'expired', refresh_token: created.refreshToken });
const { users } = google.gmail({ version: 'v1', auth, rootUrl: `${root}/`, retry: false });

// A 401 makes the client refresh once and try again.
const profile = await call('gmail.users.getProfile', users.getProfile({ userId: 'me' }));
assert.equal(profile.emailAddress, EMAIL);
assert.equal((await control('usage')).tokenRequests > 0, true);
const start = profile.historyId;
assert.equal(typeof start, 'string');

const delivered = (await mailbox('deliver?n=620', '')).messages.map((message) => message.id);
await mailbox('label', { ids: delivered.slice(0, 2), add: ['Work'], remove: ['UNREAD'] });
await mailbox('delete', { ids: [delivered[3]] });

const added = [];
let pages = 0;
for (let pageToken; pages === 0 || pageToken; pages += 1) {
  const page = await call(
    'gmail.users.history.list',
    users.history.list({
      userId: 'me',
      startHistoryId: start,
      maxResults: 500,
      pageToken,
      historyTypes: ['messageAdded', 'labelAdded', 'labelRemoved', 'messageDeleted'],
    }),
  );
  for (const record of page.history ?? []) {
    added.push(...(record.messagesAdded ?? []).map((entry) => entry.message.id));
  }
  pageToken = page.nextPageToken;
}
assert.equal(pages, 2);
assert.deepEqual(added, delivered);

let listed = 0;
for (let pageToken, first = true; first || pageToken; first = false) {
  const page = await call(
    'gmail.users.messages.list',
    users.messages.list({ userId: 'me', q: '-in:drafts -in:chats', includeSpamTrash: true, maxResults: 500, pageToken }),
  );
  listed += page.messages?.length ?? 0;
  pageToken = page.nextPageToken;
}
assert.equal(listed, 619);

const mail = [
  'From: a@example.org', 'Subject: =?utf-8?Q?f=C3=BCr?= <you>', 'Content-Type: multipart/mixed; boundary=b', '',
  '--b', 'Content-Type: text/html', '', '<p>hi', '--b', 'Content-Type: image/png; name=p.png',
  'Content-Transfer-Encoding: base64', '', 'iVBORw0=', '--b--', '',
].join('\r\n');
const [{ id }] = (await mailbox('deliver', mail, { type: 'message/rfc822' })).messages;
for (const format of ['full', 'metadata', 'minimal', 'raw']) {
  const message = await call('gmail.users.messages.get', users.messages.get({ userId: 'me', id, format }));
  if (format === 'raw') {
    assert.equal(Buffer.from(message.raw, 'base64url').toString(), mail);
  }
  if (format === 'full') {
    const attachmentId = message.payload.parts[1].body.attachmentId;
    const data = await call(
      'gmail.users.messages.attachments.get',
      users.messages.attachments.get({ userId: 'me', messageId: id, id: attachmentId }),
    );
    assert.equal(data.size, 5);
  }
}
const fields = 'id,payload(headers,parts(partId,filename))';
const masked = await call('gmail.users.messages.get', users.messages.get({ userId: 'me', id, fields }));
assert.deepEqual(Object.keys(masked), ['id', 'payload']);
await call('gmail.users.labels.list', users.labels.list({ userId: 'me' }));

await refused(users.messages.get({ userId: 'me', id: 'ffff' }), 404, 'notFound');
await refused(users.messages.list({ userId: 'me', pageToken: 'x' }), 400, 'invalidArgument');
await refused(users.getProfile({ userId: 'b@example.org' }), 403, 'forbidden');
for (const [fault, status, reason] of [
  ['quota', 403, 'rateLimitExceeded'],
  [{ userRate: 60_000 }, 429, 'rateLimitExceeded'],
  [{ backend: 503 }, 503, 'backendError'],
]) {
  await control('faults', { calls: ['getProfile'], times: 1, fault: { error: fault } });
  await refused(users.getProfile({ userId: 'me' }), status, reason);
}
await control('faults', undefined, { method: 'DELETE' });

const topicName = 'projects/p/topics/t';
await call('gmail.users.watch', users.watch({ userId: 'me', requestBody: { topicName, labelFilterBehavior: 'include' } }));
const stopped = await users.stop({ userId: 'me' });
assert.equal(stopped.status, 204);

await mailbox('revoke');
auth.setCredentials({ access_token: 'expired', refresh_token: created.refreshToken });
await assert.rejects(users.getProfile({ userId: 'me' }), /invalid_grant/);
