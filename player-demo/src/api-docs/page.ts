import 'swagger-ui-dist/swagger-ui.css';
import './api-docs.css';
// As it is published, beside our own scripts: bundling it again would gain nothing.
import swaggerUi from 'swagger-ui-dist/swagger-ui-bundle.js?url';

const reference = document.getElementById('reference')!;

/** Swagger UI has its dark colours under a class of the document. */
const dark = matchMedia('(prefers-color-scheme: dark)');
const followColours = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', followColours);
followColours();

/** Requests go where the page came from, which need not be `PUBLIC_URL`: the page's policy allows no other origin. */
async function description(): Promise<object> {
  const response = await fetch('/api/v1/openapi.json');
  if (!response.ok) throw new Error(`openapi.json: ${response.status}`);
  return { ...((await response.json()) as object), servers: [{ url: '/api/v1' }] };
}

function loadSwaggerUi(): Promise<void> {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = swaggerUi;
    script.addEventListener('load', () => resolve());
    script.addEventListener('error', () => reject(new Error('the script could not be loaded')));
    document.head.append(script);
  });
}

Promise.all([description(), loadSwaggerUi()])
  .then(([spec]) =>
    window.SwaggerUIBundle?.({
      spec,
      domNode: reference,
      deepLinking: true,
      docExpansion: 'list',
      defaultModelsExpandDepth: 0,
      filter: true,
      showCommonExtensions: true,
      displayRequestDuration: true,
      // By default the description is sent to a service that checks it.
      validatorUrl: null,
      onComplete: () => reference.removeAttribute('aria-busy'),
    }),
  )
  .catch(() => {
    reference.replaceChildren('The reference could not be loaded. Reload the page to try again.');
    reference.removeAttribute('aria-busy');
  });
