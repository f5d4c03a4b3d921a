// Browsers start no worker from a page that was opened as a file. There, search runs in a hidden frame
// that offers what a worker has: addEventListener, postMessage.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((done) => {
        frame.onload = () => {
          const inside = frame.contentWindow;
          const answer = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          inside.postMessage = answer;
          inside.importScripts = () => {};
          const script = inside.document.createElement("script");
          script.src = url;
          script.onload = () => done(inside);
          inside.document.body.append(script);
        };
      });
      document.body.append(frame);
    }

    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
