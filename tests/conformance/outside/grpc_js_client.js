// grpc-js calls our interoperability service; prints a line for each case: its name, and "ok" or what was wrong.
//
//     node grpc_js_client.js interop.proto PORT

const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [proto, port] = process.argv.slice(2);
const testing = grpc.loadPackageDefinition(loader.loadSync(proto, { keepCase: true })).grpc.testing;
const address = `127.0.0.1:${port}`;
const client = new testing.TestService(address, grpc.credentials.createInsecure());
const unimplemented = new testing.UnimplementedService(address, grpc.credentials.createInsecure());

function unary(method, request, metadata = new grpc.Metadata(), of = client) {
  return new Promise((resolve) => {
    const seen = {};
    const call = of[method](request, metadata, (error, reply) => {
      seen.error = error;
      seen.reply = reply;
    });
    call.on("metadata", (initial) => { seen.initial = initial; });
    call.on("status", (status) => { seen.status = status; resolve(seen); });
  });
}

function messages(call) {
  return new Promise((resolve) => {
    const sizes = [];
    call.on("data", (message) => sizes.push(message.payload.body.length));
    call.on("error", () => {});
    call.on("status", (status) => resolve({ sizes, status }));
  });
}

function check(condition, text) {
  if (!condition) throw new Error(text);
}

const sizes = [31415, 9, 2653, 58979];
const cases = {
  async empty_unary() {
    check((await unary("EmptyCall", {})).status.code === 0, "status");
  },
  async large_unary() {
    const seen = await unary("UnaryCall", { response_size: 314159, payload: { body: Buffer.alloc(271828) } });
    check(seen.reply && seen.reply.payload.body.length === 314159, "size");
  },
  async client_streaming() {
    const reply = await new Promise((resolve, reject) => {
      const call = client.StreamingInputCall((error, message) => (error ? reject(error) : resolve(message)));
      for (const size of [27182, 8, 1828, 45904]) call.write({ payload: { body: Buffer.alloc(size) } });
      call.end();
    });
    check(reply.aggregated_payload_size === 74922, `${reply.aggregated_payload_size}`);
  },
  async server_streaming() {
    const call = client.StreamingOutputCall({ response_parameters: sizes.map((size) => ({ size })) });
    check((await messages(call)).sizes.join() === sizes.join(), "sizes");
  },
  async ping_pong() {
    const call = client.FullDuplexCall();
    let k = 0;
    const ask = () => call.write({ response_parameters: [{ size: sizes[k++] }], payload: { body: Buffer.alloc(1000) } });
    const all = messages(call);
    call.on("data", () => (k < sizes.length ? ask() : call.end()));
    ask();
    const seen = await all;
    check(seen.sizes.join() === sizes.join() && seen.status.code === 0, "sizes");
  },
  async cancel_after_first_response() {
    const call = client.FullDuplexCall();
    const all = messages(call);
    call.on("data", () => call.cancel());
    call.write({ response_parameters: [{ size: 31415 }] });
    check((await all).status.code === grpc.status.CANCELLED, "status");
  },
  async timeout_on_sleeping_server() {
    const call = client.FullDuplexCall(new grpc.Metadata(), { deadline: Date.now() + 20 });
    check((await messages(call)).status.code === grpc.status.DEADLINE_EXCEEDED, "status");
  },
  async custom_metadata() {
    const metadata = new grpc.Metadata();
    metadata.set("x-grpc-test-echo-initial", "test_initial_metadata_value");
    metadata.set("x-grpc-test-echo-trailing-bin", Buffer.from([0xab, 0xab, 0xab]));
    const seen = await unary("UnaryCall", { response_size: 1 }, metadata);
    check(seen.initial.get("x-grpc-test-echo-initial")[0] === "test_initial_metadata_value", "initial");
    check(seen.status.metadata.get("x-grpc-test-echo-trailing-bin")[0].equals(Buffer.from([0xab, 0xab, 0xab])), "trailing");
  },
  async status_code_and_message() {
    const seen = await unary("UnaryCall", { response_status: { code: 2, message: "test status message" } });
    check(seen.status.code === 2 && seen.status.details === "test status message", seen.status.details);
  },
  async special_status_message() {
    const message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    const seen = await unary("UnaryCall", { response_status: { code: 2, message } });
    check(seen.status.details === message, JSON.stringify(seen.status.details));
  },
  async unimplemented_method() {
    check((await unary("UnimplementedCall", {})).status.code === grpc.status.UNIMPLEMENTED, "status");
  },
  async unimplemented_service() {
    const seen = await unary("UnimplementedCall", {}, new grpc.Metadata(), unimplemented);
    check(seen.status.code === grpc.status.UNIMPLEMENTED, "status");
  },
};

async function main() {
  for (const [name, run] of Object.entries(cases)) {
    try {
      await run();
      console.log(name, "ok");
    } catch (error) {
      console.log(name, String(error.message).replaceAll("\n", " "));
    }
  }
  client.close();
  unimplemented.close();
}

main();
