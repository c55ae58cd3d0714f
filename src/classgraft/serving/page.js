// Only comfort: dropping, pasting, photographing, previews, answers without a new page. All of it works without, too.
"use strict";

for (const form of document.querySelectorAll("form[enctype]")) furnish(form);
if (document.querySelector("main[data-busy]")) setTimeout(look, 700);

function furnish(form) {
  const zone = form.querySelector(".zone"), input = zone.querySelector("input");
  const chosen = zone.querySelector(".chosen"), wrong = zone.querySelector(".wrong");

  function put(files) {
    const held = new DataTransfer();
    for (const file of files) held.items.add(file);
    input.files = held.files;
    show();
  }

  function add(files) {
    const pictures = [...files].filter((file) => file.type.startsWith("image/"));
    if (pictures.length) put([...input.files, ...pictures]);
    else wrong.textContent = "That is no picture.";
  }

  function complaint() {
    const files = [...input.files], bytes = files.reduce((sum, file) => sum + file.size, 0);
    if (files.length > +input.dataset.most) return `${files.length} pictures are more than ${input.dataset.most}; take some out.`;
    if (bytes > +input.dataset.bytes * 0.99) return `They are more than ${input.dataset.bytes >> 20} MiB together; take some out.`;
    return "";
  }

  function show() {
    for (const image of chosen.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    chosen.replaceChildren(...[...input.files].slice(0, +input.dataset.most).map((file, place) => {
      const item = document.createElement("li"), image = document.createElement("img"), out = document.createElement("button");
      image.src = URL.createObjectURL(file);
      image.alt = file.name;
      out.type = "button";
      out.textContent = "×";
      out.setAttribute("aria-label", `Take out ${file.name}`);
      out.onclick = () => put([...input.files].filter((_, i) => i !== place));
      item.append(image, out);
      return item;
    }));
    wrong.textContent = complaint();
  }

  input.addEventListener("change", show);
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    add(event.dataTransfer.files);
  });
  if (input.id === "look-pictures") document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) add(event.clipboardData.files);
  });
  camera(zone, (file) => put([...input.files, file]));
  form.addEventListener("submit", (event) => {
    if (complaint()) return event.preventDefault();
    const button = form.querySelector("button.go");
    setTimeout(() => { button.disabled = true; });  // after the form was put together
    if (form.dataset.answer) {
      event.preventDefault();
      ask(form, button, wrong);
    }
  });
  window.addEventListener("pageshow", () => { form.querySelector("button.go").disabled = false; });
  if (input.files.length) show();  // the browser has kept them over a reload
}

async function ask(form, button, wrong) {
  wrong.textContent = "";
  try {
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = page.getElementById(form.dataset.answer), error = page.querySelector(".error");
    if (answer.ok && found) document.getElementById(form.dataset.answer).replaceChildren(...found.childNodes);
    else wrong.textContent = error ? error.textContent : "The program gave no answer that can be shown.";
  } catch {
    wrong.textContent = "The program cannot be reached; look whether it still runs.";
  }
  setTimeout(() => { button.disabled = false; });
}

function camera(zone, take) {
  const button = zone.querySelector(".camera");
  if (!navigator.mediaDevices?.getUserMedia) return;  // also where the page is neither on loopback nor encrypted
  button.hidden = false;
  let stream = null, video = null;
  function stop() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    video?.remove();
    stream = video = null;
    zone.classList.remove("shooting");
    button.textContent = "Take a photo";
  }
  button.addEventListener("click", async () => {
    if (!stream) {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      } catch {
        zone.querySelector(".wrong").textContent = "No camera can be used; allow it in the browser, or choose files.";
        return;
      }
      video = document.createElement("video");
      Object.assign(video, { srcObject: stream, autoplay: true, muted: true, playsInline: true });
      button.before(video);
      zone.classList.add("shooting");
      button.textContent = "Shoot";
      return;
    }
    if (!video.videoWidth) return;
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      take(new File([blob], `photo-${new Date().toISOString().slice(11, 19).replaceAll(":", "-")}.jpg`, { type: "image/jpeg" }));
      stop();
    }, "image/jpeg", 0.92);
  });
}

async function look() {
  try {
    const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
    const main = document.querySelector("main"), fresh = page.querySelector("main");
    if (!fresh.hasAttribute("data-busy")) return location.reload();
    const status = main.querySelector(".busy"), now = fresh.querySelector(".busy");
    if (status && now && status.innerHTML !== now.innerHTML) status.replaceChildren(...now.childNodes);
  } catch { /* it may come back */ }
  setTimeout(look, 700);
}
