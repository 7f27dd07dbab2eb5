// The images of a question: chosen, dropped, pasted, or taken from an example.

import { byId, el, icon } from "./dom.js";
import { bytes, number, plural } from "./words.js";

/** Something is wrong with an image; the message says what to do. */
class Unfit extends Error {}

export class Images {
  /** `limits` of the gateway: image_bytes, image_pixels, image_types, images, body_bytes. */
  constructor(limits) {
    this.limits = limits;
    this.all = [];
    this.drop = byId("drop");
    this.list = byId("images");
    this.trouble = byId("image-trouble");
    this._listen();
  }

  /** Data URLs for the request. */
  get urls() {
    return this.all.map((image) => image.url);
  }

  /** What an export says of them: never their bytes. */
  get told() {
    return this.all.map(({ name, type, size, width, height, sha256 }) => ({ name, type, bytes: size, width, height, sha256 }));
  }

  clear() {
    this.all = [];
    this._draw();
  }

  async add(files) {
    this.trouble.replaceChildren();
    for (const file of files) {
      try {
        this.all.push(await this._read(file));
      } catch (error) {
        const said = error instanceof Unfit ? error.message : `${file.name || "The image"} cannot be read. Choose another one.`;
        this.trouble.append(el("p", { class: "field-trouble" }, icon("error"), said));
      }
      this._draw();
    }
  }

  async _read(file) {
    const { limits } = this;
    const name = file.name || "The image";
    if (this.all.length >= limits.images) {
      throw new Unfit(limits.images ? `This gateway takes at most ${plural(limits.images, "image")} a question. Remove one first.` : "This gateway takes no images.");
    }
    if (!limits.image_types.includes(file.type)) {
      const known = limits.image_types.map((t) => t.slice(6).toUpperCase()).join(", ");
      throw new Unfit(`${name} is of a kind that is not taken here. Choose one of: ${known}.`);
    }
    const used = this.all.reduce((sum, image) => sum + image.url.length, 0);
    if (file.size > limits.image_bytes || used + file.size * 1.37 > limits.body_bytes - 65536) {
      throw new Unfit(`${name} is too large (${bytes(file.size)}). An image may have ${bytes(limits.image_bytes)}, a question ${bytes(limits.body_bytes)} in all. Make it smaller and try again.`);
    }
    const url = await asDataURL(file);
    const { width, height } = await measured(url);
    if (width * height > limits.image_pixels) {
      throw new Unfit(`${name} has too many pixels (${number(width)} × ${number(height)}). Make it smaller and try again.`);
    }
    return { name, type: file.type, size: file.size, width, height, url, sha256: await digest(file), alt: file.alt ?? "" };
  }

  _draw() {
    this.drop.classList.toggle("small", this.all.length > 0);
    this.drop.querySelector(".drop-name").textContent = this.all.length ? "Add another image" : "Choose an image";
    this.list.replaceChildren(
      ...this.all.map((image) =>
        el(
          "li",
          {},
          el("img", { src: image.url, alt: image.alt || `Image: ${image.name}`, width: image.width, height: image.height }),
          el("span", { class: "image-name", text: `${image.name}, ${number(image.width)} × ${number(image.height)}, ${bytes(image.size)}` }),
          el("button", { type: "button", class: "quiet small", "aria-label": `Remove ${image.name}`, on: { click: () => this._remove(image) } }, "Remove"),
        ),
      ),
    );
  }

  _remove(image) {
    this.all = this.all.filter((other) => other !== image);
    this._draw();
    byId("file").focus();
  }

  _listen() {
    const input = byId("file");
    input.addEventListener("change", async () => {
      await this.add([...input.files]);
      input.value = "";
    });
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])].filter((f) => f.type.startsWith("image/"));
      if (!files.length) return;
      event.preventDefault();
      this.add(files);
    });
    // The whole page takes drops: a picture that misses the box must not replace the page.
    for (const name of ["dragover", "dragleave", "drop"]) {
      document.addEventListener(name, (event) => {
        if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
        event.preventDefault();
        this.drop.classList.toggle("over", name === "dragover");
        if (name === "drop") this.add([...event.dataTransfer.files]);
      });
    }
  }
}

function asDataURL(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

async function measured(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return { width: image.naturalWidth, height: image.naturalHeight };
}

/** Browsers compute hashes on pages from this machine and from https only. */
async function digest(file) {
  if (!globalThis.crypto?.subtle) return null;
  const found = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(found)].map((b) => b.toString(16).padStart(2, "0")).join("");
}
